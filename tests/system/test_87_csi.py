"""Volumes of a storage driver outside of the tree: registration, staging, publishing, attaching, and all of it undone."""
import json

import lab
import pytest
from lab import eventually, run
from machines import Machines

NAME = "csi"
DEMO = "rk.local/demo:1"
DRIVER = "folders.example.com"
NODE = "server-1"


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    made = Machines(NAME)
    folder = tmp_path_factory.mktemp("image")
    run(lab.ROOT / "installer/demo-image.sh", folder / "demo.tar", DEMO)
    run(lab.ROOT / "tests/system/csi-image.sh", folder / "driver.tar", "rk.local/csi-driver:1")
    made.up(agents=0)
    try:
        made.on(NODE, "rk", "image", "import", folder / "demo.tar", folder / "driver.tar")
        yield made
    finally:
        made.task("down")


def apply(machines, *things):
    for thing in things:
        machines.kubectl("apply", "-f", "-", input=json.dumps(thing))


def thing(api, kind, name, spec=None, **more):
    made = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more}
    return {**made, "spec": spec} if spec is not None else made


def start_driver(machines, **about):
    apply(machines, thing("storage.k8s.io/v1", "CSIDriver", DRIVER, {
        "podInfoOnMount": True, "volumeLifecycleModes": ["Persistent", "Ephemeral"], "fsGroupPolicy": "File", **about}))
    host = lambda name, path: {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
    container = {
        "name": "driver", "image": "rk.local/csi-driver:1", "imagePullPolicy": "Never", "args": [], "securityContext": {"privileged": True},
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumeMounts": [{"name": "kubelet", "mountPath": "/var/lib/kubelet", "mountPropagation": "Bidirectional"}, {"name": "data", "mountPath": "/data"}]}
    labels = {"app": "driver"}
    apply(machines, thing("apps/v1", "DaemonSet", "driver", {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
        "containers": [container], "volumes": [host("kubelet", "/var/lib/kubelet"), host("data", "/var/lib/csi-data")], "terminationGracePeriodSeconds": 1}}}))


def calls(machines):
    lines = machines.on(NODE, "cat", "/var/lib/csi-data/calls", check=False).stdout.splitlines()
    return [json.loads(line) for line in lines]


def names(machines, volume):
    return [c["call"] for c in calls(machines) if c["volume"] == volume]


def claimed(machines, name, **csi):
    """A volume and its claim."""
    apply(machines, thing("v1", "PersistentVolume", name, {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": DRIVER, "volumeHandle": f"handle-{name}", **csi}}),
        thing("v1", "PersistentVolumeClaim", name, {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}))


def start(machines, name, volume, script="echo $HOSTNAME >> /v/file; sleep 100000", **spec):
    container = {"name": "c", "image": DEMO, "imagePullPolicy": "Never", "command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    apply(machines, thing("v1", "Pod", name, {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [{"name": "v", **volume}], **spec}))


def running(machines, *pods):
    machines.kubectl("wait", "--for=condition=Ready", *(f"pod/{pod}" for pod in pods), "--timeout=60s")


def mounts(machines):
    return [line for line in machines.on(NODE, "cat", "/proc/mounts").stdout.splitlines() if "csi" in line and "/kubelet/" in line]


def test_a_driver_registers_with_its_topology_and_limit(machines):
    eventually("a node of no drivers", lambda: machines.get("csinode", NODE)["spec"]["drivers"] == [])
    start_driver(machines, attachRequired=False)
    driver = eventually("the driver", lambda: (machines.get("csinode", NODE)["spec"]["drivers"] or [None])[0], 60)
    assert driver == {"name": DRIVER, "nodeID": f"id-of-{NODE}", "topologyKeys": [f"topology.{DRIVER}/node"], "allocatable": {"count": 7}}
    meta = machines.get("node", NODE)["metadata"]
    assert meta["labels"][f"topology.{DRIVER}/node"] == NODE
    assert json.loads(meta["annotations"]["csi.volume.kubernetes.io/nodeid"]) == {DRIVER: f"id-of-{NODE}"}


def test_a_volume_is_staged_once_and_published_for_each_pod(machines):
    machines.kubectl("create", "secret", "generic", "login", "--from-literal=user=me")
    claimed(machines, "shared", nodeStageSecretRef={"name": "login", "namespace": "default"})
    claim = {"persistentVolumeClaim": {"claimName": "shared"}}
    start(machines, "one", claim, securityContext={"fsGroup": 4321})
    start(machines, "two", claim)
    running(machines, "one", "two")
    assert sorted(machines.on(NODE, "cat", "/var/lib/csi-data/volumes/handle-shared/file").stdout.split()) == ["one", "two"]
    assert "4321" in machines.kubectl("exec", "one", "--", "stat", "-c", "%g", "/v")
    asked = [c for c in calls(machines) if c["volume"] == "handle-shared"]
    assert next(c for c in asked if c["call"] == "stage")["more"] == {"user": "me"}
    published = [c["more"]["csi.storage.k8s.io/pod.name"] for c in asked if c["call"] == "publish"]
    assert sorted(published) == ["one", "two"]
    machines.kubectl("delete", "pod", "one", "--timeout=60s")
    assert names(machines, "handle-shared").count("unpublish") == 1 and "unstage" not in names(machines, "handle-shared")
    machines.kubectl("delete", "pod", "two", "--timeout=60s")
    assert names(machines, "handle-shared")[-2:] == ["unpublish", "unstage"]
    assert mounts(machines) == []


def test_an_inline_volume_lives_with_its_pod(machines):
    start(machines, "inline", {"csi": {"driver": DRIVER, "volumeAttributes": {"size": "small"}}})
    running(machines, "inline")
    asked = calls(machines)[-1]
    assert asked["call"] == "publish" and asked["volume"].startswith("csi-")
    assert (asked["more"]["size"], asked["more"]["csi.storage.k8s.io/ephemeral"]) == ("small", "true")
    machines.kubectl("delete", "pod", "inline", "--timeout=60s")
    assert names(machines, asked["volume"]) == ["publish", "unpublish"]


def test_a_restarted_kubelet_knows_what_it_has_to_undo(machines):
    claimed(machines, "kept")
    start(machines, "kept", {"persistentVolumeClaim": {"claimName": "kept"}})
    running(machines, "kept")
    machines.task("kill", NODE)
    machines.task("start", NODE)
    eventually("the API", lambda: machines.kubectl("get", "--raw", "/readyz") == "ok")
    machines.kubectl("delete", "pod", "kept", "--timeout=90s")
    assert names(machines, "handle-kept")[-2:] == ["unpublish", "unstage"]
    assert machines.on(NODE, "cat", "/var/lib/csi-data/volumes/handle-kept/file").stdout == "kept\n"
    assert mounts(machines) == []


def test_a_volume_waits_until_it_is_attached_and_is_detached_when_it_is_unmounted(machines):
    machines.kubectl("delete", "csidriver", DRIVER)
    start_driver(machines, attachRequired=True)
    claimed(machines, "far")
    start(machines, "far", {"persistentVolumeClaim": {"claimName": "far"}})
    attachment = eventually("an attachment", lambda: machines.get("volumeattachments")["items"])[0]
    assert attachment["spec"] == {"attacher": DRIVER, "nodeName": NODE, "source": {"persistentVolumeName": "far"}}
    eventually("what it waits for", lambda: "is not attached" in machines.kubectl("get", "events", "--field-selector=involvedObject.name=far"))
    assert names(machines, "handle-far") == []
    # As an attacher of the driver would.
    status = json.dumps({"status": {"attached": True, "attachmentMetadata": {"device": "/dev/x"}}})
    machines.kubectl("patch", "volumeattachment", attachment["metadata"]["name"], "--subresource=status", "--type=merge", "-p", status)
    running(machines, "far")
    eventually("the node's word", lambda: machines.get("node", NODE)["status"].get("volumesInUse") == [f"kubernetes.io/csi/{DRIVER}^handle-far"])
    attached = machines.get("node", NODE)["status"]["volumesAttached"]
    assert attached == [{"name": f"kubernetes.io/csi/{DRIVER}^handle-far", "devicePath": ""}]
    machines.kubectl("delete", "pod", "far", "--timeout=60s")
    eventually("no attachment", lambda: machines.get("volumeattachments")["items"] == [], 60)
    eventually("nothing in use", lambda: not machines.get("node", NODE)["status"].get("volumesInUse"))


def test_a_driver_that_leaves_is_forgotten_and_its_volumes_are_named(machines):
    machines.kubectl("delete", "daemonset", "driver", "--timeout=60s")
    machines.on(NODE, "sh", "-c", "rm -f /var/lib/kubelet/plugins_registry/*")
    eventually("no driver", lambda: not machines.get("csinode", NODE)["spec"]["drivers"])
    start(machines, "alone", {"csi": {"driver": DRIVER}})
    why = f"driver name {DRIVER} not found in the list of registered CSI drivers"
    eventually("why it waits", lambda: why in machines.kubectl("get", "events", "--field-selector=involvedObject.name=alone"))
    machines.kubectl("delete", "pod", "alone", "--timeout=60s")
