#!/bin/bash
# Makes a small web server's image from Debian's package busybox-static, without any container tool.
# usage: demo-image.sh OUT.tar NAME
set -euo pipefail
out=$(realpath -m "$1") name=$2 here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! busybox=$(command -v busybox) || ldd "$busybox" >/dev/null 2>&1; then
    apt-get download -qq busybox-static >/dev/null
    dpkg-deb -x busybox-static_*.deb package
    busybox=$work/package/bin/busybox
fi
mkdir -p root/bin root/tmp root/www root/etc
chmod 1777 root/tmp
cp "$busybox" root/bin/busybox
chmod 755 root/bin/busybox
for applet in sh httpd wget cat ls echo sleep env id nslookup nc ps true false tar date head tail grep sed vi mkdir rm touch hostname kill dd stat test find mount ip; do
    ln -s busybox "root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' >root/etc/group

"$here/pack-image.sh" root "$out" "$name" httpd -f -p 8080 -h /www
