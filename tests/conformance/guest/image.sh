#!/bin/bash
# Makes the disk, kernel and initial ramdisk of a Debian 12 guest: systemd, cgroup v2. usage: image.sh
# Output: $RK_CACHE/conformance/guest/{disk.img,vmlinuz,initrd.img}. Does nothing when they are there and this script has not changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${RK_CACHE:-$HOME/.cache/rk}/conformance/guest
key=$(sha256sum < "$here/image.sh" | cut -d' ' -f1)
[ "$(cat "$out/.key" 2>/dev/null)" = "$key" ] && exit 0
mkdir -p "$out"
root=$out/root
trap 'rm -rf "$root"' EXIT
rm -rf "$root" "$out/.key"
mmdebstrap --quiet --variant=minbase \
    --include=systemd,systemd-sysv,udev,linux-image-cloud-amd64,initramfs-tools,kmod,iproute2,nftables,procps,util-linux,ca-certificates \
    bookworm "$root" $(ls /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
# What the guest is for comes as a tar on its second disk, with setup.sh in it.
cat > "$root/etc/systemd/system/setup.service" <<'U'
[Unit]
Description=takes this run's files from the second disk and does as they say
After=systemd-modules-load.service systemd-udev-settle.service
Wants=systemd-udev-settle.service
[Service]
Type=oneshot
ExecStart=/usr/bin/tar -C / -xf /dev/vdb
ExecStart=/usr/local/sbin/setup
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target
U
printf '%s\n' br_netfilter overlay nf_tables vxlan veth > "$root/etc/modules-load.d/rk.conf"
echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
chroot "$root" passwd -d root >/dev/null
chroot "$root" systemctl enable -q setup.service
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd.img"
rm -f "$out/disk.img"
mke2fs -q -t ext4 -F -E root_owner=0:0 -d "$root" "$out/disk.img" 6G
echo "$key" > "$out/.key"
