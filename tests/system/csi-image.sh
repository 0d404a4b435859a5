#!/bin/bash
# Builds the storage driver of tests (tests/conformance/suite/csidriver) and its image.
# usage: csi-image.sh OUT.tar NAME
set -euo pipefail
out=$(realpath -m "$1") name=$2 here=$(dirname "$(realpath "$0")")
cache=${RK_CACHE:-$HOME/.cache/rk}
PATH=$PATH:/usr/local/go/bin:$cache/conformance/go/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root"
cd "$here/../conformance/suite"
CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=local nice go build -ldflags "-s -w" -o "$work/root/csidriver" ./csidriver
"$here/../../installer/pack-image.sh" "$work/root" "$out" "$name" /csidriver
