"""The README's first command: from nothing to a page through the Ingress; a second run is quick and does no harm."""
import json
import os
import time

import lab
from lab import ROOT, eventually, kubectl, run


def test_quickstart_brings_a_cluster_and_a_page():
    assert os.environ.get("RK_BINARY"), "tests/run.sh names the binary under test in RK_BINARY"
    leftover = lab.host_state()
    assert not leftover["processes"] and "/var/lib/rk" not in leftover["files"], "a cluster is on this machine already: rk uninstall"
    path = lab.CACHE / "host-before.json"
    path.write_text(json.dumps({k: sorted(v) for k, v in leftover.items()}))
    out = run(ROOT / "installer/quickstart.sh", timeout=900).stdout
    assert "Hello from your cluster" in out
    for phase in ("cluster started", "system pods ready", "page fetched through the Ingress"):
        assert phase in out


def test_a_second_quickstart_changes_nothing():
    pid = lab.server_pid()
    pods = lab.get("pods", "-n", "demo")
    before = {p["metadata"]["uid"] for p in pods["items"]}
    began = time.monotonic()
    out = run(ROOT / "installer/quickstart.sh", env={"RK_BINARY": ""}, timeout=300).stdout
    assert "Hello from your cluster" in out and lab.server_pid() == pid
    assert {p["metadata"]["uid"] for p in lab.get("pods", "-n", "demo")["items"]} == before
    print(f"second quickstart: {time.monotonic() - began:.1f} s")


def test_node_and_system_pods_are_ready():
    node = lab.get("nodes")["items"][0]
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True" and conditions["MemoryPressure"] == "False"
    assert node["spec"]["podCIDR"].endswith("/24")
    pods = lab.get("pods", "-n", "kube-system")["items"]
    assert {p["metadata"]["labels"].get("k8s-app", p["metadata"]["labels"].get("app.kubernetes.io/name")) for p in pods} >= {"kube-dns", "ingress"}
    assert all(c["ready"] for p in pods for c in p["status"]["containerStatuses"])


def test_the_kubeconfig_is_the_administrators_alone():
    assert oct(os.stat("/etc/rk/kubeconfig.yaml").st_mode & 0o777) == "0o600"


def test_binary_is_static():
    binary = os.environ["RK_BINARY"]
    headers = run("readelf", "-lW", "-d", binary).stdout
    assert "INTERP" not in headers and "NEEDED" not in headers


def test_health_endpoints_name_their_checks():
    assert kubectl("get", "--raw", "/livez") == "ok"
    verbose = kubectl("get", "--raw", "/readyz?verbose")
    assert "[+]ping ok" in verbose and verbose.rstrip().endswith("readyz check passed")
    assert json.loads(kubectl("get", "--raw", "/version"))["gitVersion"].startswith("v1.37.1")
    assert "apiserver_request_total" in kubectl("get", "--raw", "/metrics")
    eventually("demo pages", lambda: "Hello" in run("curl", "-fsS", f"http://{lab.node_ip()}/").stdout)
