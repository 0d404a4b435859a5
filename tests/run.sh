#!/bin/bash
# Installs what the tests need, builds rk and runs every test. Exits non-zero on any failure.
# usage: sudo ./tests/run.sh [--all]     --all also runs what takes long (hundreds of crashes)
# Build output goes to ~/.cache/rk (or RK_CACHE), so that a second run is quick.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests: run me as root: sudo $0" >&2; exit 1; }
[ "${1:-}" = --all ] && export RK_TEST_ALL=1
cache=${RK_CACHE:-$HOME/.cache/rk}
mkdir -p "$cache"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target} CARGO_TERM_COLOR=never

missing=()
for package in busybox-static nftables iproute2 docker-registry apache2-utils curl gcc libc6-dev make util-linux python3 python3-venv procps openssl binutils e2fsprogs etcd-server; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
command -v kubectl >/dev/null || missing+=(kubernetes-client)
for bin in "$HOME/.cargo/bin" "/home/${SUDO_USER:-nobody}/.cargo/bin" /usr/lib/rust-web/bin /usr/share/cargo-web/bin; do
    [ -x "$bin/cargo" ] && PATH=$PATH:$bin
done
command -v cargo >/dev/null || { missing+=(rustc-web cargo-web); PATH=$PATH:/usr/lib/rust-web/bin:/usr/share/cargo-web/bin; }
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    # docker-registry and etcd-server would start services of their own; the tests start theirs.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
python=$cache/venv/bin/python
if ! "$python" -c 'import pytest, kubernetes' 2>/dev/null; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install -q --disable-pip-version-check pytest 'kubernetes==37.*'
fi

# Upstream's suite takes ten minutes to build once: beside the other tests, and only in what they leave of the processors.
nice -n 19 tests/conformance/build.sh > "$cache/conformance-build.log" 2>&1 &
suite=$!
trap 'kill $suite 2>/dev/null || true' EXIT

echo "== build"
cargo build -j2 --locked --package rk --package xtask
export RK_BINARY=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/rk XTASK=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/xtask
status=0
echo "== unit and kernel tests"
cargo test -j2 --locked --workspace --quiet --no-fail-fast || status=1
echo "== system tests"
"$python" -m pytest -q -p no:cacheprovider tests/system || status=1
echo "== the API server's answers against upstream's"
tests/differential/quick.sh > "$cache/differential.log" 2>&1 || { tail -40 "$cache/differential.log"; status=1; }
echo "== conformance tests, a slice"
wait $suite || { cat "$cache/conformance-build.log"; status=1; }
"$python" -m pytest -q -p no:cacheprovider tests/conformance || status=1
echo "== other people's programs"
"$python" -m pytest -q -p no:cacheprovider tests/programs || status=1
tests/conformance/run.sh --slice || status=1
exit $status
