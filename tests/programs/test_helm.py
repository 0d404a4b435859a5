"""helm 3 and 4: install, upgrade, rollback, test and uninstall of a chart with a definition, hooks and a lookup."""
import json
import os
import pathlib

import build
import programs
import pytest

CHART = pathlib.Path(__file__).parent / "chart"


@pytest.fixture(params=sorted(programs.HELM))
def helm(request, cluster, tmp_path):
    try:
        program = programs.helm(request.param)
    except build.NotBuilt as why:
        pytest.skip(f"{request.param} is not built: {why}")
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
