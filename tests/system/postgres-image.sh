#!/bin/bash
# Makes an image of PostgreSQL 15 from this machine's Debian packages, without any container tool.
# The server runs as user 999 on the folder $PGDATA, which it fills where it is empty.
# usage: postgres-image.sh OUT.tar NAME
set -euo pipefail
out=$(realpath -m "$1") name=$2 here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# What the server and psql link, without the compiler of its expressions (libllvm), and a shell for initdb.
packages=(postgresql-15 postgresql-client-15 libpq5 libc6 libgcc-s1 libstdc++6 libgssapi-krb5-2 libkrb5-3 libkrb5support0 libk5crypto3
    libcom-err2 libkeyutils1 libicu72 libldap-2.5-0 libsasl2-2 libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libnettle8
    libhogweed6 libgmp10 libffi8 liblz4-1 libzstd1 libpam0g libaudit1 libcap-ng0 libreadline8 libtinfo6 libselinux1 libpcre2-8-0 libssl3
    libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 libuuid1 libxml2 libxslt1.1 zlib1g tzdata libc-bin busybox-static)
apt-get download -qq "${packages[@]}" >/dev/null
mkdir root
for package in ./*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C root --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*' --exclude='./usr/share/postgresql/15/man/*' --exclude='./usr/lib/postgresql/15/lib/bitcode/*' \
        --exclude='./usr/lib/postgresql/15/lib/llvmjit*'
done
for applet in sh cat ls echo sleep env id mkdir chmod kill true false; do
    ln -sf /bin/busybox "root/bin/$applet"
done
mkdir -p root/data root/tmp root/var/run/postgresql root/usr/local/bin
chmod 1777 root/tmp root/data root/var/run/postgresql
printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:999:999:postgres:/data:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\npostgres:x:999:\n' >root/etc/group
cat >root/usr/local/bin/run-postgres <<'SCRIPT'
#!/bin/sh
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH
[ -s "$PGDATA/PG_VERSION" ] || initdb --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8
chmod 700 "$PGDATA" # the volume's group has been given a part in it
exec postgres -c listen_addresses='*' -c jit=off
SCRIPT
chmod 755 root/usr/local/bin/run-postgres
"$here/../../installer/pack-image.sh" root "$out" "$name" /usr/local/bin/run-postgres
