#!/bin/bash
# One command from a fresh Debian machine to a page served by a cluster: builds rk if there is none, starts it, runs a demo.
# usage: sudo ./installer/quickstart.sh [--image NAME]
#   --image NAME   use this image for the demo (pulled from its registry) instead of one made on the spot; it must have
#                  /bin/sh and an httpd as busybox has
# RK_BINARY=FILE installs this binary instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
image=
while [ $# -gt 0 ]; do
    case $1 in
        --image) image=${2:?--image takes a name}; shift 2 ;;
        --image=*) image=${1#*=}; shift ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 64 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "quickstart: run me as root: sudo $0" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || { echo "quickstart: rk is built for x86-64 so far; this machine is $(uname -m)" >&2; exit 1; }

began=$(date +%s%N)
phase() {
    local from to; from=$(date +%s%N)
    local what=$1; shift
    "$@"
    to=$(date +%s%N)
    printf '%-44s %6d ms\n' "$what" $(((to - from) / 1000000))
}
fail() { echo "quickstart: $*" >&2; exit 1; }

packages() { # install what is missing, quietly
    local missing=()
    for p in "$@"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
    [ ${#missing[@]} = 0 ] && return
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

build() {
    if [ -n "${RK_BINARY:-}" ]; then install -m 755 "$RK_BINARY" /usr/local/bin/rk; return; fi
    [ -x /usr/local/bin/rk ] && return
    for bin in "$HOME/.cargo/bin" "/home/${SUDO_USER:-nobody}/.cargo/bin" /usr/lib/rust-web/bin /usr/share/cargo-web/bin; do
        [ -x "$bin/cargo" ] && PATH=$bin:$PATH
    done
    packages gcc libc6-dev make
    command -v cargo >/dev/null || { packages rustc-web cargo-web; PATH=/usr/lib/rust-web/bin:/usr/share/cargo-web/bin:$PATH; }
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${RK_CACHE:-$HOME/.cache/rk}/target}
    echo "building rk (some ten minutes on two cores, once) ..."
    cargo xtask build
    install -m 755 "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release/rk" /usr/local/bin/rk
}

running() { [ -e /run/rk/server.lock ] && ! flock -n -s /run/rk/server.lock true; }

start() {
    running && return
    rk check >/tmp/rk-check.$$ || { cat /tmp/rk-check.$$; rm -f /tmp/rk-check.$$; fail "this machine cannot run a cluster yet (see 'missing' above)"; }
    rm -f /tmp/rk-check.$$
    if [ -d /run/systemd/system ]; then
        install -m 644 installer/rk.service /etc/systemd/system/rk.service
        systemctl daemon-reload
        systemctl enable --now --quiet rk.service
    else
        setsid nohup rk server </dev/null >>/var/log/rk.log 2>&1 &
    fi
}

pressure() { # what keeps pods from the node, in its own words
    kubectl get nodes -o jsonpath='{range .items[*].status.conditions[?(@.status=="True")]}{.type}: {.message}{"\n"}{end}' 2>/dev/null | grep Pressure
}

wait_ready() {
    local why began=$SECONDS
    while [ $((SECONDS - began)) -lt 300 ]; do
        if [ -s /etc/rk/kubeconfig.yaml ] && kubectl get --raw /readyz >/dev/null 2>&1; then
            why=$(pressure) && fail "the node takes no pods, $why (under a tenth of the disk or a hundred megabytes of memory is free: make room, then run this again)"
            kubectl wait --for=condition=Ready node --all --timeout=5s >/dev/null 2>&1 &&
                kubectl -n kube-system wait --for=condition=Available deployment --all --timeout=20s >/dev/null 2>&1 && return
        fi
        [ $((SECONDS - began)) -gt 3 ] && ! running && ! [ -d /run/systemd/system ] && { tail -n 5 /var/log/rk.log; fail "rk server has stopped; its log is /var/log/rk.log"; }
        sleep 0.1
    done
    kubectl -n kube-system get pods 2>/dev/null || true
    fail "the cluster did not become ready within five minutes; its log is /var/log/rk.log (or: journalctl -u rk)"
}

demo_image() {
    if [ -n "$image" ]; then rk image pull "$image" >/dev/null; return; fi
    image=rk.local/demo:1
    rk image list | grep -q "^$image " && return
    local archive; archive=$(mktemp --suffix=.tar)
    ./installer/demo-image.sh "$archive" "$image"
    rk image import "$archive" >/dev/null
    rm -f "$archive"
}

demo() {
    sed "s|%{IMAGE}|$image|" installer/demo.yaml | kubectl apply -f - >/dev/null
    kubectl -n demo rollout status deployment/web --timeout=180s >/dev/null
}

fetch() {
    local i
    address=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
    for i in $(seq 300); do
        page=$(curl -fsS --max-time 5 "http://$address/" 2>/dev/null) && [[ $page == *Hello* ]] && return
        sleep 0.1
    done
    fail "no answer from http://$address/ (kubectl -n demo describe ingress web)"
}

packages curl util-linux
command -v kubectl >/dev/null || packages kubernetes-client
export KUBECONFIG=/etc/rk/kubeconfig.yaml
phase "rk binary in /usr/local/bin" build
phase "cluster started" start
phase "API, node and system pods ready" wait_ready
phase "demo image made and imported" demo_image
phase "demo: 3 pods, Service, Ingress" demo
phase "page fetched through the Ingress" fetch
printf '%-44s %6d ms\n\n%s\n\n' "all" $((($(date +%s%N) - began) / 1000000)) "http://$address/ says: $page"
cat <<TEXT
What to try next:
  export KUBECONFIG=/etc/rk/kubeconfig.yaml
  kubectl get pods -A -o wide
  kubectl -n demo logs deployment/web
  kubectl -n demo scale deployment/web --replicas=5
  kubectl -n demo exec -it deployment/web -- sh
  kubectl delete namespace demo
  sudo rk uninstall                          remove everything
TEXT
