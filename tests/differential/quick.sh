#!/bin/bash
# The differential tests in process against known.txt; see README.md. Without Go, or without its modules at hand, it says so and passes.
# usage: quick.sh [ARGUMENTS OF run.py]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${RK_CACHE:-$HOME/.cache/rk}
python=$cache/venv/bin/python
[ -x "$python" ] || python=python3
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
PATH=$PATH:/usr/local/go/bin:$cache/go/bin
if ! command -v go >/dev/null; then
    echo "differential: skipped, there is no Go" >&2
    exit 0
fi
oracle=$cache/differential/facts
mkdir -p "$(dirname "$oracle")"
(cd src/xtask/facts && GOFLAGS='-mod=mod -buildvcs=false' nice go build -o "$oracle" .)
cargo build -q -j2 --locked -p apiserver --example differential
exec "$python" tests/differential/run.py --oracle "$oracle" --subject "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/examples/differential" \
    --count 60 --known tests/differential/known.txt "$@"
