#!/bin/bash
# Packs a folder as an OCI image archive with one layer, with tar and sha256sum only.
# usage: pack-image.sh [--program] ROOT OUT.tar NAME COMMAND [ARGUMENT ...]
#   --program: an image as projects publish theirs: a pod that names arguments and no command gives them to COMMAND, and its user is not root
set -euo pipefail
field=Cmd user=
[ "$1" = --program ] && { field=Entrypoint user='"User":"65532",'; shift; }
root=$(realpath "$1") out=$(realpath -m "$2") name=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p layout/blobs/sha256
command=$(printf '"%s",' "$@")

digest() { sha256sum "$1" | cut -d' ' -f1; }
blob() { local d; d=$(digest "$1"); mv "$1" "layout/blobs/sha256/$d"; echo "$d"; }

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -cf layer.tar .
diff_id=$(digest layer.tar)
gzip -n layer.tar
size=$(stat -c %s layer.tar.gz)
layer=$(blob layer.tar.gz)
cat >config.json <<JSON
{"architecture":"$(dpkg --print-architecture)","os":"linux","config":{$user"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"$field":[${command%,}],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
config_size=$(stat -c %s config.json)
config=$(blob config.json)
cat >manifest.json <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$size}]}
JSON
manifest_size=$(stat -c %s manifest.json)
manifest=$(blob manifest.json)
cat >layout/index.json <<JSON
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"annotations":{"io.containerd.image.name":"$name"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
tar -C layout -cf "$out" .
