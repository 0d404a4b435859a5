#!/bin/bash
# Makes the images that upstream's conformance suite (v1.37.1) uses from nothing, under the names that `e2e.test --list-images` prints.
# usage: images.sh     Output: $RK_CACHE/conformance/images (one tar per image, refs.json and blobs/ for images/registry.py).
# Needs root, mmdebstrap, gcc, and what build.sh made. Does nothing when they are there and what they are made of has not changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${RK_CACHE:-$HOME/.cache/rk}/conformance
bin=$cache/bin out=$cache/images work=$cache/rootfs
PATH=$PATH:/usr/local/go/bin:$cache/go/bin
upstream=$(cd "$here/suite" && go list -mod=mod -m -f '{{.Dir}}' k8s.io/kubernetes)
busybox_version=1.35.0
registry=registry.k8s.io tests=registry.k8s.io/e2e-test-images

key=$(cat "$here/images.sh" "$here"/images/*.c "$here/images/mkimage.py" "$here/suite/go.sum" | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/.key" 2>/dev/null)" = "$key" ] && exit 0
mkdir -p "$out" "$work"
rm -rf "$out"/*.tar "$out/refs.json" "$out/blobs" "$out/.key"

image() { python3 "$here/images/mkimage.py" "$out" "$@"; }
fresh() { rm -rf "$work/$1" "$work/$1.layer"; mkdir -p "$work/$1"; }
debian() { # NAME PACKAGES: a Debian root file system, made once
    [ -e "$work/$1.done" ] && [ "$(cat "$work/$1.done")" = "$2" ] && return
    rm -rf "${work:?}/$1" "$work/$1.layer"
    mmdebstrap --quiet --variant=minbase --include="$2" bookworm "$work/$1" \
        $(ls /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    (cd "$work/$1" && rm -rf var/lib/apt/lists/* var/cache/apt/* var/log/* usr/share/doc usr/share/man usr/share/locale)
    echo "$2" > "$work/$1.done"
}
program() { gcc -static -Os -s -o "$bin/$1" "$here/images/$1.c"; }

# Debian's busybox *binary* drops environment names like "data-1", and bash words "can't create /file: Read-only file system"
# otherwise: the untouched source, as Debian keeps it, does both as upstream's image does.
busybox() {
    [ -x "$bin/busybox" ] && return
    local src=$work/busybox-src
    rm -rf "$src"; mkdir -p "$src/lists/partial" "$src/archives/partial"
    printf 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n' > "$src/sources.list"
    local apt=(-qq -o Dir::Etc::sourcelist="$src/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$src/lists"
        -o Dir::Cache::archives="$src/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    (cd "$src" && apt-get "${apt[@]}" update && apt-get "${apt[@]}" source --download-only busybox)
    tar -C "$src" -xf "$src"/busybox_$busybox_version.orig.tar.bz2
    (cd "$src/busybox-$busybox_version" && make -s defconfig >/dev/null &&
        sed -i -e 's/^CONFIG_TC=y/# CONFIG_TC is not set/' -e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config &&
        make -s oldconfig </dev/null >/dev/null && nice make -s -j"$(nproc)" busybox >"$src/log" 2>&1) || { tail -20 "$src/log"; exit 1; }
    cp "$src/busybox-$busybox_version/busybox" "$bin/busybox"
    rm -rf "$src"
}

# ---- pause
program pause
fresh pause; cp "$bin/pause" "$work/pause/pause"
image $registry/pause:3.10.2 "$work/pause" --entrypoint /pause --user 65535:65535

# ---- busybox (a second version has a digest of its own, or a pod's status would name either)
busybox
fresh busybox; root=$work/busybox
mkdir -p "$root"/{bin,etc,root,tmp,var,usr/bin,home,dev}
chmod 1777 "$root/tmp"
cp "$bin/busybox" "$root/bin/busybox"
"$bin/busybox" --list | while read -r name; do [ "$name" = busybox ] || ln -sf busybox "$root/bin/$name"; done
ln -s /bin/env "$root/usr/bin/env"
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > "$root/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n' > "$root/etc/group"
image $tests/busybox:1.37.0-2 "$root" --cmd sh
image $tests/busybox:1.36.1-1 "$root" --cmd sh --label version=previous

# ---- nonewprivs: a set-uid program on busybox
program nnp
fresh nnp; mkdir -p "$work/nnp/usr/local/bin"; cp "$bin/nnp" "$work/nnp/usr/local/bin/nnp"; chmod 6755 "$work/nnp/usr/local/bin/nnp"
image $tests/nonewprivs:1.4 "$root" "$work/nnp" --cmd nnp

# ---- agnhost: the tools that tests run inside, on Debian (upstream: Alpine)
debian tools bash,curl,bind9-dnsutils,netcat-openbsd,iproute2,iperf,util-linux,socat,ca-certificates
fresh agnhost; root=$work/agnhost
mkdir -p "$root"/{uploads,etc,usr/bin}
cp "$bin/agnhost" "$root/agnhost"
ln -s agnhost "$root/agnhost-2"
cp "$upstream"/test/images/agnhost/porter/localhost.{crt,key} "$root/"
chmod 0755 "$root/agnhost"; chmod 0644 "$root"/localhost.*
{ cat "$work/tools/etc/passwd"; echo 'user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh'; } > "$root/etc/passwd"
{ cat "$work/tools/etc/group"; echo 'user-defined-in-image:x:1000:'; echo 'group-defined-in-image:x:50000:user-defined-in-image'; } > "$root/etc/group"
# A test reads "Alpine Linux" from kitten, which stands on agnhost.
printf 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=0\nPRETTY_NAME="Alpine Linux (stand-in made from Debian)"\n' > "$root/etc/os-release"
ln -s bash "$root/usr/bin/sh"
agnhost=(--entrypoint /agnhost --cmd pause --port 80 --port 8080 --port 8081 --port 9376 --port 5000)
image $tests/agnhost:2.66.1 "$work/tools" "$root" "${agnhost[@]}"
image $tests/agnhost:2.55 "$work/tools" "$root" "${agnhost[@]}" --label version=previous
image $tests/glibc-dns-testing:2.1.1 "$work/tools" --cmd bash

# ---- nautilus, kitten: agnhost and two files
for name in nautilus kitten; do
    fresh $name
    cp "$upstream/test/images/$name/html/data.json" "$upstream/test/images/$name/html/$name.jpg" "$work/$name/"
    chmod 0644 "$work/$name"/*
    image $tests/$name:1.8 "$work/tools" "$work/agnhost" "$work/$name" --entrypoint /agnhost --cmd test-webserver
done

# ---- nginx
debian nginx nginx-light,curl
mkdir -p "$work/nginx/var/log/nginx" # emptied with all logs, and nginx does not start without it
image $tests/nginx:1.27.0-2 "$work/nginx" --cmd nginx --cmd=-g --cmd "daemon off;" --port 80
image $tests/nginx:1.28.0-2 "$work/nginx" --cmd nginx --cmd=-g --cmd "daemon off;" --port 80 --label version=next

# ---- sample-apiserver and its etcd
fresh sample; mkdir "$work/sample/tmp"; chmod 1777 "$work/sample/tmp"; cp "$bin/sample-apiserver" "$work/sample/sample-apiserver"
image $tests/sample-apiserver:1.29.2 "$work/sample" --entrypoint /sample-apiserver
fresh etcd; mkdir -p "$work/etcd/usr/local/bin" "$work/etcd/tmp"; cp "$bin/etcd" "$bin/etcdctl" "$work/etcd/usr/local/bin/"
image $registry/etcd:3.7.0-0 "$work/etcd" --entrypoint /usr/local/bin/etcd

echo "$key" > "$out/.key"
