#!/bin/bash
# Builds the oracle (src/xtask/facts): upstream's registries in one process. usage: oracle.sh     Output: $RK_CACHE/differential/facts
# Cold: five minutes on two cores. Without Go it says so and makes nothing.
set -euo pipefail
cd "$(dirname "$0")/../../src/xtask/facts"
cache=${RK_CACHE:-$HOME/.cache/rk}
PATH=$PATH:/usr/local/go/bin:$cache/conformance/go/bin
command -v go >/dev/null || { echo "differential: there is no Go" >&2; exit 0; }
mkdir -p "$cache/differential"
# As the conformance suite is built: most of what both are made of is compiled once.
exec env CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS='-mod=mod -buildvcs=false' nice go build -o "$cache/differential/facts" .
