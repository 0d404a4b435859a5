#!/bin/bash
# The differential tests in process against known.txt, all of the first and a sample of the others; see README.md. Without Go it says so and passes.
# usage: quick.sh [ARGUMENTS OF run.py]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${RK_CACHE:-$HOME/.cache/rk}
python=$cache/venv/bin/python
[ -x "$python" ] || python=python3
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
oracle=$cache/differential/facts
tests/differential/oracle.sh
if [ ! -x "$oracle" ]; then
    echo "differential: skipped, there is no oracle" >&2
    exit 0
fi
cargo build -q -j2 --locked --workspace --bins --example differential   # as tests/run.sh builds it
exec "$python" tests/differential/run.py --oracle "$oracle" --subject "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/debug/examples/differential" \
    --count 60 --operations create,update,json,merge,strategic,apply,custom,policy --requests 300 --known tests/differential/known.txt "$@"
