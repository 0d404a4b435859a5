#!/bin/bash
# Installs what the tests need, builds rk and runs every test. Exits non-zero on any failure.
# usage: sudo ./tests/run.sh [--all]     --all also runs what takes long (hundreds of crashes) and what else rotates by day
# Build output goes to ~/.cache/rk (or RK_CACHE), so that a second run is quick.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests: run me as root: sudo $0" >&2; exit 1; }
[ "${1:-}" = --all ] && export RK_TEST_ALL=1
cache=${RK_CACHE:-$HOME/.cache/rk}
mkdir -p "$cache"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target} CARGO_TERM_COLOR=never

missing=()
for package in busybox-static nftables iproute2 docker-registry apache2-utils curl gcc libc6-dev make util-linux python3 python3-venv procps openssl binutils e2fsprogs etcd-server mmdebstrap bzip2; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ -z "${RK_TEST_ALL:-}" ] || dpkg -s qemu-system-x86 >/dev/null 2>&1 || missing+=(qemu-system-x86)
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
if ! "$python" -c 'import pytest, kubernetes, grpc' 2>/dev/null; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install -q --disable-pip-version-check pytest 'kubernetes==37.*' 'grpcio==1.*'
fi

# What others wrote is built beside the tests, and only in what they leave of the processors. Cold, it would be forty minutes of Go: what is not there
# yet takes turns by the day.
oracle_is_due() { [ -x "$cache/differential/facts" ] || python3 tests/system/turns.py oracle; }
# A session of its own: the kernel weighs sessions against each other first, and only then what is in them (sched(7), autogroup).
aside() { exec setsid bash -c '{ echo 19 > /proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"' aside "$@"; }
aside bash -c 'tests/conformance/build.sh && tests/conformance/images.sh' > "$cache/suite.log" 2>&1 &
suite=$!
oracle=true
! oracle_is_due || oracle=tests/differential/oracle.sh
aside bash -c 'tail --pid="$1" -f /dev/null; "$2" && "$3" tests/programs/programs.py' programs "$suite" "$oracle" "$python" > "$cache/programs.log" 2>&1 &
programs=$!
units=
trap 'for session in $suite $programs; do kill -- -$session 2>/dev/null || true; done; kill $units 2>/dev/null || true' EXIT

echo "== build"
# An example among them, so that tokio comes with what the unit tests ask of it: otherwise all that stands on it is compiled twice.
cargo build -j2 --locked --workspace --bins --example differential
export RK_BINARY=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/rk XTASK=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/xtask
status=0
# Compiled while the system tests wait for pods; run after them, since both look at what there is on the host.
nice cargo test -j2 --locked --workspace --quiet --no-run > "$cache/unit-build.log" 2>&1 &
units=$!
echo "== system tests"
"$python" -m pytest -q -p no:cacheprovider --durations=12 tests/system || status=1
echo "== unit and kernel tests"
wait $units || tail -100 "$cache/unit-build.log"
cargo test -j2 --locked --workspace --quiet --no-fail-fast || status=1
echo "== conformance tests, a slice"
wait $suite || { tail -100 "$cache/suite.log"; status=1; }
"$python" -m pytest -q -p no:cacheprovider tests/conformance || status=1
tests/conformance/run.sh --slice || status=1
echo "== the API server's answers against upstream's"
wait $programs || { tail -100 "$cache/programs.log"; status=1; }
if oracle_is_due; then
    tests/differential/quick.sh > "$cache/differential.log" 2>&1 || { tail -40 "$cache/differential.log"; status=1; }
else
    echo "skipped: the oracle is not built yet, and today is not its day; --all builds it"
fi
echo "== other people's programs"
"$python" -m pytest -q -p no:cacheprovider tests/programs || status=1
if [ -n "${RK_TEST_ALL:-}" ]; then
    echo "== two machines with kernels of their own"
    tests/conformance/run.sh --guest --agents 1 --network-backend wireguard --list tests/conformance/guest/tests.txt --jobs 2 || status=1
fi
exit $status
