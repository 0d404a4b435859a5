#!/bin/bash
# Runs upstream's conformance tests (v1.37.1) against rk. usage: sudo tests/conformance/run.sh --help; README.md tells more.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export RK_CACHE=${RK_CACHE:-$HOME/.cache/rk}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$RK_CACHE/target} CARGO_TERM_COLOR=never
for option in "$@"; do case $option in -h|--help) exec python3 "$here/run.py" --help;; esac; done
[ "$(id -u)" = 0 ] || { echo "conformance: run me as root" >&2; exit 1; }
for bin in "$HOME/.cargo/bin" /usr/local/go/bin /usr/lib/rust-web/bin /usr/share/cargo-web/bin; do [ -d "$bin" ] && PATH=$PATH:$bin; done

guest=
case " $* " in *" --guest "*) guest=qemu-system-x86;; esac
missing=()
for package in mmdebstrap gcc libc6-dev make bzip2 iproute2 nftables util-linux e2fsprogs python3 openssl curl $guest; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
upstream=
[ "${RK_TEST_SUBJECT:-rk}" = rk ] || upstream=--upstream
"$here/build.sh" $upstream
"$here/images.sh"
if [ -z "${XTASK:-}" ]; then
    cargo build -j2 --locked --quiet --package xtask
    export XTASK=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/xtask
fi
if [ -z "${RK_BINARY:-}" ]; then
    cargo build -j2 --locked --quiet --package rk
    export RK_BINARY=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/rk
fi
exec python3 "$here/run.py" "$@"
