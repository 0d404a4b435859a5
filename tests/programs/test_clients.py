"""Clients in other languages with kinds of their own: JavaScript, Python, Rust."""
import json
import shutil
import sys

import build
import lab
import programs
import pytest
from lab import eventually

FOLDER = lab.ROOT / "tests/programs"
BOX = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box", "namespace": "default"}, "spec": {
    "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": lab.DEMO_IMAGE, "command": ["sleep", "100000"]}]}}


def test_the_javascript_client_with_a_kind_of_its_own(cluster, tmp_path):
    try:
        packages = programs.node_client()
    except build.NotBuilt as why:
        pytest.skip(f"the JavaScript client is not there: {why}")
    program = shutil.copy(FOLDER / "javascript/program.mjs", packages / "program.mjs")
    cluster.apply(json.dumps(BOX))
    cluster.kubectl("wait", "pod/box", "--for=condition=Ready", "--timeout=60s")
    seen = json.loads(cluster.on("hub", "node", program, "default", "box").stdout)
    cluster.kubectl("delete", "pod", "box")
    assert seen == {
        "defaulted": 5,
        "conflict": 422,
        "refused": [422, {"reason": "FieldValueInvalid", "field": "spec.volume",
                          "message": "Invalid value: 12: spec.volume in body should be less than or equal to 11"}],
        "patched": [7, ["c", "d"], ["c", "d", "e"]],
        "strategic": 415,
        "subresources": [3, 7, 4, 4],
        "watched": ["MODIFIED first"] * 5,
        "informed": ["add first", "delete first", 5],
        "exec": ["from afar", "NonZeroExitCode", "3"],
    }


def test_the_python_client_with_a_kind_of_its_own(cluster):
    cluster.on("hub", sys.executable, FOLDER / "python/program.py")


@pytest.fixture
def poet(cluster, tmp_path):
    """The controller made with kube-rs, in a pod."""
    try:
        program = programs.kube_rs()
    except build.NotBuilt as why:
        pytest.skip(f"the program with kube-rs is not built: {why}")
    cluster.program_image(tmp_path / "image", "rk.local/kube-rs:1", {"poet": program})
    cluster.kubectl("apply", "-f", FOLDER / "kube-rs/manifests.yaml")
    yield lambda *words: cluster.kubectl("-n", "books", *words)
    cluster.kubectl("delete", "poems", "--all", "-n", "books", "--ignore-not-found", "--timeout=60s", check=False)
    cluster.kubectl("delete", "-f", FOLDER / "kube-rs/manifests.yaml", "--timeout=60s")
    cluster.kubectl("delete", "crd", "poems.books.example.com", "--timeout=60s")


def test_a_controller_made_with_kube_rs(cluster, poet):
    cluster.rollout("books", "deployment/poet")
    eventually("the poem", lambda: '"copies":2' in poet("get", "poem", "long", "-o", "jsonpath={.status}"))
    log = eventually("the log", lambda: poet("logs", "deployment/poet"))
    assert 'refused: Poem.books.example.com "long" is invalid: <nil>: Invalid value: failed rule: self.spec.copies <= 3' in log, log
    assert poet("get", "configmap/long-0", "configmap/long-1", "-o", "name") == "configmap/long-0\nconfigmap/long-1\n"
    assert poet("get", "poems", "--field-selector", "spec.mood=Wild", "-o", "name") == "poem.books.example.com/long\n"
    poet("delete", "configmap", "long-0")
    eventually("what the poem owns", lambda: poet("get", "configmap", "long-0", "--ignore-not-found"))
    poet("scale", "poem", "long", "--replicas=3")
    eventually("three copies", lambda: poet("get", "configmap", "long-2", "--ignore-not-found"))
    managers = {(m["manager"], m["operation"], m.get("subresource")) for m in cluster.get("poem", "long", "-n", "books", "--show-managed-fields")["metadata"]["managedFields"]}
    assert {("author", "Apply", None), ("poet", "Apply", "status"), ("kubectl", "Update", "scale")} <= managers, managers
    poet("delete", "poem", "long", "--timeout=60s")
    eventually("an end to what it owned", lambda: poet("get", "configmap", "long-0", "long-1", "long-2", "--ignore-not-found") == "")
    reasons = eventually("events", lambda: {"Printed", "Burnt"} <= {
        e["reason"] for e in cluster.get("events.events.k8s.io", "-n", "books", "--field-selector", "regarding.kind=Poem")["items"]})
    assert reasons
    assert "seen long" in poet("logs", "deployment/poet")
