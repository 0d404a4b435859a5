"""Clients in other languages with kinds of their own: JavaScript, Python, Rust."""
import json
import shutil
import sys

import build
import lab
import pytest

FOLDER = lab.ROOT / "tests/programs"
BOX = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box", "namespace": "default"}, "spec": {
    "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": lab.DEMO_IMAGE, "command": ["sleep", "100000"]}]}}


def test_the_javascript_client_with_a_kind_of_its_own(cluster, tmp_path):
    try:
        packages = build.node_package("@kubernetes/client-node")
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
