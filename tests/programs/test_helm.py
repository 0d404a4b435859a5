"""helm 3 and 4: install, upgrade, rollback, test and uninstall of a chart with a definition, hooks and a lookup."""
import json
import os
import pathlib

import build
import lab
import pytest
from lab import run

NAME = "helm"
CHART = pathlib.Path(__file__).parent / "chart"
IMAGE = "rk.local/demo:1"
PROGRAMS = {"helm3": ("helm.sh/helm/v3/cmd/helm", "v3.19.4"), "helm4": ("helm.sh/helm/v4/cmd/helm", "v4.3.1")}


class Cluster:
    """A lab by name, through `xtask lab`."""

    def __init__(self, xtask):
        self.xtask = str(xtask)

    def task(self, *words):
        return run(self.xtask, "lab", words[0], "--name", NAME, *words[1:], timeout=600)

    def on(self, machine, *words, check=True, input=None):
        return run(self.xtask, "lab", "exec", "--name", NAME, machine, "--", *words, check=check, input=input, timeout=400)

    def kubectl(self, *words, check=True):
        return self.on("hub", "kubectl", *words, check=check).stdout

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "-o", "json"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(os.environ["XTASK"])
    archive = tmp_path_factory.mktemp("image") / "demo.tar"
    run(lab.ROOT / "installer/demo-image.sh", archive, IMAGE)
    made.task("up", "--servers", "1", "--agents", "0", "--binary", os.environ["RK_BINARY"])
    try:
        made.on("server-1", "rk", "image", "import", archive)
        yield made
    finally:
        made.task("down")


def applies(cluster):
    probe = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": "default"}})
    words = ("kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-")
    return cluster.on("hub", *words, check=False, input=probe).returncode == 0


@pytest.fixture(params=sorted(PROGRAMS))
def helm(request, cluster, tmp_path):
    package, version = PROGRAMS[request.param]
    try:
        program = build.program(package, version, request.param)
    except build.NotBuilt as why:
        pytest.skip(f"{request.param} is not built: {why}")
    if request.param == "helm4" and not applies(cluster):
        pytest.skip("helm 4 applies on the server's side, which this one does not serve yet")
    folders = [f"HELM_{kind}_HOME={tmp_path}/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")]

    def call(*words, check=True):
        return cluster.on("hub", "env", *folders, program, "--namespace", "default", *words, check=check)

    call.release = request.param
    return call


def config(cluster, release):
    return cluster.get("configmap", release)["data"]


def test_a_chart_lives_through_its_releases(helm, cluster, tmp_path):
    release = helm.release
    values = tmp_path / "values.yaml"
    # Charts carry dashboards and the like: a release is a Secret close to its limit.
    values.write_text("padding: " + os.urandom(150_000).hex() + "\n")
    helm("install", release, CHART, "--values", values, "--wait", "--timeout", "120s")
    first = config(cluster, release)
    assert (first["greeting"], first["revision"], first["kinds"]) == ("hello", "1", "true")
    assert first["cluster"] == cluster.get("namespace", "kube-system")["metadata"]["uid"]
    greeting = cluster.get("greetings.example.com", release)
    assert greeting["spec"] == {"text": "hello", "times": 1}
    assert "before 1" in cluster.kubectl("logs", f"job/{release}-before")
    helm("test", release, "--timeout", "120s")

    helm("upgrade", release, CHART, "--values", values, "--set", "greeting=goodbye", "--wait", "--timeout", "120s")
    assert (config(cluster, release)["greeting"], config(cluster, release)["revision"]) == ("goodbye", "2")
    assert cluster.get("greetings.example.com", release)["spec"]["text"] == "goodbye"
    helm("test", release, "--timeout", "120s")

    # A hook that fails stops an upgrade before anything is changed.
    failed = helm("upgrade", release, CHART, "--reuse-values", "--set", "greeting=fail", "--wait", "--timeout", "60s", check=False)
    assert failed.returncode != 0 and "pre-upgrade" in failed.stderr, failed.stderr
    assert config(cluster, release)["greeting"] == "goodbye"

    helm("rollback", release, "1", "--wait", "--timeout", "120s")
    assert config(cluster, release) == first
    history = json.loads(helm("history", release, "--output", "json").stdout)
    assert [entry["status"] for entry in history] == ["superseded", "superseded", "failed", "deployed"]
    helm("test", release, "--timeout", "120s")

    helm("uninstall", release, "--wait", "--timeout", "120s")
    left = cluster.kubectl("get", "deployment,service,greetings.example.com", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name")
    assert left == ""
    assert cluster.on("hub", "kubectl", "get", "deployment", release, check=False).returncode != 0
    # The hook made it, and helm leaves definitions alone.
    cluster.get("configmap", f"{release}-deleted")
    cluster.get("crd", "greetings.example.com")


def test_a_chart_that_the_schema_refuses_leaves_nothing(helm, cluster):
    refused = helm("install", f"{helm.release}-bad", CHART, "--set", "greeting=", "--timeout", "60s", check=False)
    assert refused.returncode != 0
    assert cluster.on("hub", "kubectl", "get", "greetings.example.com", f"{helm.release}-bad", check=False).returncode != 0
