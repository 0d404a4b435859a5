"""The Python client `kubernetes`, a client that was written against upstream."""
import pytest
from kubernetes import client, config, watch
from kubernetes.stream import stream

from lab import DEMO_IMAGE, eventually

NS = "python-test"


@pytest.fixture(scope="module")
def core():
    config.load_kube_config()
    api = client.CoreV1Api()
    api.create_namespace({"metadata": {"name": NS}})
    yield api
    api.delete_namespace(NS)


def test_objects_come_back_typed(core):
    made = core.create_namespaced_config_map(NS, {"metadata": {"generateName": "made-", "labels": {"a": "b"}}, "data": {"k": "v"}})
    assert made.metadata.name.startswith("made-") and made.metadata.uid and made.metadata.creation_timestamp
    made.data["k"] = "w"
    replaced = core.replace_namespaced_config_map(made.metadata.name, NS, made)
    assert replaced.data == {"k": "w"}
    with pytest.raises(client.ApiException) as conflict:
        core.replace_namespaced_config_map(made.metadata.name, NS, made)
    assert conflict.value.status == 409 and "please apply your changes to the latest version" in conflict.value.body
    assert [c.metadata.name for c in core.list_namespaced_config_map(NS, label_selector="a=b").items] == [made.metadata.name]


def test_paging_returns_every_object_once(core):
    for i in range(25):
        core.create_namespaced_secret(NS, {"metadata": {"name": f"page-{i:02}"}, "stringData": {"i": str(i)}})
    names, token = [], None
    while True:
        page = core.list_namespaced_secret(NS, limit=7, _continue=token)
        names += [s.metadata.name for s in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == sorted(names) and len([n for n in names if n.startswith("page-")]) == 25


def test_watch_from_a_version_misses_nothing(core):
    version = core.list_namespaced_service_account(NS).metadata.resource_version
    for i in range(10):
        core.create_namespaced_service_account(NS, {"metadata": {"name": f"w{i}"}})
    core.delete_namespaced_service_account("w3", NS)
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_service_account, NS, resource_version=version, timeout_seconds=30):
        if event["object"].metadata.name.startswith("w"):
            seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 11:
            break
    assert seen == [("ADDED", f"w{i}") for i in range(10)] + [("DELETED", "w3")]


def test_exec_over_websocket(core):
    core.create_namespaced_pod(NS, {"metadata": {"name": "box"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": DEMO_IMAGE, "command": ["sleep", "100000"]}]}})
    eventually("Running", lambda: core.read_namespaced_pod("box", NS).status.phase == "Running")
    answer = stream(core.connect_get_namespaced_pod_exec, "box", NS, command=["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True, stdin=False, tty=False)
    assert "out" in answer and "err" in answer


def test_errors_carry_status_and_causes(core):
    with pytest.raises(client.ApiException) as invalid:
        core.create_namespaced_pod(NS, {"metadata": {"name": "Bad"}, "spec": {"containers": []}})
    assert invalid.value.status == 422
    assert '"reason":"Invalid"' in invalid.value.body and "spec.containers" in invalid.value.body
    with pytest.raises(client.ApiException) as missing:
        core.read_namespaced_pod("nothing", NS)
    assert missing.value.status == 404 and 'pods \\"nothing\\" not found' in missing.value.body
