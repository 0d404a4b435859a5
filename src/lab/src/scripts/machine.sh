# The init of a machine: sees to its mounts, then reaps what is left to it until it is killed.
# usage: machine.sh FOLDER NAME RESOLVER; standard input: one line per cgroup hierarchy, `MOUNT TYPE OPTIONS`
set -eu
folder=$1 name=$2 resolver=$3
mount --make-rprivate /
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys

# The machine's own view of the cgroups: its cgroup namespace makes its group the root.
first=yes
while read -r at type options; do
    if [ "$first$at" = yes/sys/fs/cgroup ]; then
        mount -t "$type" "$type" "$at"
    else
        [ -n "$first" ] && mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        mkdir -p "$at"
        if [ "$type" = cgroup2 ]; then mount -t cgroup2 cgroup2 "$at"; else mount -t cgroup -o "$options" cgroup "$at"; fi
    fi
    first=
done

# A disk of its own: how full the host's is, and what other machines write, puts no pressure on this node; and a file that
# grows as it is used is removed at once.
disk=$folder/disk
mkdir -p "$disk"
truncate -s 40G "$disk.img"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -m 0 "$disk.img"
mount -o loop,discard,noatime "$disk.img" "$disk"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/lab "$disk"/lib/rk "$disk"/log "$disk"/etc "$disk"/etc.work "$disk"/bin "$disk"/bin.work
mount --bind "$disk/lib" /var/lib
mount --bind "$disk/log" /var/log
mount -t overlay -o "lowerdir=/etc,upperdir=$disk/etc,workdir=$disk/etc.work" overlay /etc
# An installed rk is the host's: what a machine removes there stays there.
mount -t overlay -o "lowerdir=/usr/local/bin,upperdir=$disk/bin,workdir=$disk/bin.work" overlay /usr/local/bin
mkdir -p /etc/rk
rm -f /etc/resolv.conf
echo "nameserver $resolver" > /etc/resolv.conf
echo "$name" > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" > /etc/hosts
hostname "$name"
ip link set lo up

# Settings that no namespace holds: what the machine writes must not reach the host.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    [ -e "/proc/sys/$setting" ] || continue
    copy=/run/lab/$(echo "$setting" | tr / _)
    cat "/proc/sys/$setting" > "$copy"
    mount --bind "$copy" "/proc/sys/$setting"
done
mount --make-rshared /
touch "$folder/ready"
exec </dev/null
# The shell collects every orphan while it waits; the sleeper gives it something to wait for.
sleep infinity &
while :; do wait || true; done
