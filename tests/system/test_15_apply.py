"""Server-side apply with stock kubectl: managers, conflicts, migration from client-side apply, diff, pruning with ApplySets."""
import json

import pytest
from lab import eventually, get, kubectl, refused, remove_namespace, run

NS = "apply-test"


def config_map(name="settings", labels=None, **data):
    metadata = {"name": name, "namespace": NS, **({"labels": labels} if labels else {})}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def deployment(replicas=None, image="rk.local/demo:1"):
    spec = {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "main", "image": image}]}}}
    if replicas is not None:
        spec["replicas"] = replicas
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": NS}, "spec": spec})


def apply(document, *args):
    return kubectl("apply", "--server-side", *args, "-f", "-", input=document)


def managers(*what):
    entries = json.loads(kubectl("-n", NS, "get", *what, "-o", "json", "--show-managed-fields"))["metadata"].get("managedFields", [])
    return {(e["manager"], e["operation"], e.get("subresource", "")): e["fieldsV1"] for e in entries}


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NS)
    yield
    remove_namespace(NS)


def test_what_is_applied_is_owned_and_what_is_left_out_goes():
    assert "serverside-applied" in apply(config_map(a="1", b="2"))
    assert managers("configmap/settings") == {("kubectl", "Apply", ""): {"f:data": {"f:a": {}, "f:b": {}}}}
    version = get("-n", NS, "configmap/settings")["metadata"]["resourceVersion"]
    apply(config_map(a="1", b="2"))
    assert get("-n", NS, "configmap/settings")["metadata"]["resourceVersion"] == version, "nothing changed"
    apply(config_map(a="1"))
    assert get("-n", NS, "configmap/settings")["data"] == {"a": "1"}
    assert "managedFields" not in kubectl("-n", NS, "get", "configmap/settings", "-o", "yaml")


def test_conflicts_name_the_manager_and_give_way_to_force():
    apply(config_map("shared", a="1"), "--field-manager=first")
    text = refused("apply", "--server-side", "--field-manager=second", "-f", "-", input=config_map("shared", a="2"))
    assert 'conflict with "first": .data.a' in text and "--force-conflicts" in text
    apply(config_map("shared", a="2"), "--field-manager=second", "--force-conflicts")
    assert set(managers("configmap/shared")) == {("second", "Apply", "")}
    apply(config_map("shared", a="2"), "--field-manager=first")
    assert set(managers("configmap/shared")) == {("first", "Apply", ""), ("second", "Apply", "")}


def test_other_writes_have_managers_too():
    apply(deployment(replicas=0))
    kubectl("-n", NS, "scale", "deployment/a", "--replicas=0")
    kubectl("-n", NS, "label", "deployment/a", "x=y")
    found = managers("deployment/a")
    assert found[("kubectl-label", "Update", "")]["f:metadata"]["f:labels"]["f:x"] == {}
    eventually("the controller's status", lambda: ("kube-controller-manager", "Update", "status") in managers("deployment/a"))
    text = refused("apply", "--server-side", "-f", "-", "--field-manager=other", input=deployment(replicas=3))
    assert ".spec.replicas" in text
    apply(deployment(), "--field-manager=other")
    kubectl("-n", NS, "scale", "deployment/a", "--replicas=1")
    assert ("kubectl", "Update", "scale") in managers("deployment/a")
    assert "f:replicas" not in managers("deployment/a")[("kubectl", "Apply", "")]["f:spec"]


def test_objects_of_client_side_apply_move_over():
    kubectl("apply", "-f", "-", input=config_map("moved", a="1", b="2"))
    assert ("kubectl-client-side-apply", "Update", "") in managers("configmap/moved")
    apply(config_map("moved", a="2"))
    assert get("-n", NS, "configmap/moved")["data"] == {"a": "2"}
    # kubectl keeps the annotation under a name of its own.
    assert set(managers("configmap/moved")) == {("kubectl", "Apply", ""), ("kubectl-last-applied", "Apply", "")}
    # And back: the annotation was kept up.
    kubectl("apply", "-f", "-", input=config_map("moved", c="3"))
    assert get("-n", NS, "configmap/moved")["data"] == {"c": "3"}


def test_diff_shows_what_an_apply_would_do_and_does_nothing():
    apply(config_map("diffed", a="1"))
    done = run("kubectl", "diff", "--server-side", "-f", "-", input=config_map("diffed", a="2"), check=False)
    assert done.returncode == 1 and '-  a: "1"' in done.stdout and '+  a: "2"' in done.stdout, done.stdout + done.stderr
    assert get("-n", NS, "configmap/diffed")["data"] == {"a": "1"}
    apply(config_map("diffed", a="3"), "--dry-run=server")
    assert get("-n", NS, "configmap/diffed")["data"] == {"a": "1"}


def test_unknown_and_repeated_fields_are_refused():
    bad = json.loads(config_map("bad"))
    bad["nope"] = 1
    text = refused("apply", "--server-side", "--validate=false", "-f", "-", input=json.dumps(bad))
    assert ".nope: field not declared in schema" in text
    twice = json.loads(deployment())
    twice["spec"]["template"]["spec"]["containers"] *= 2
    text = refused("apply", "--server-side", "--validate=false", "-f", "-", input=json.dumps(twice))
    assert 'duplicate entries for key [name="main"]' in text


def test_apply_sets_prune_what_is_left_out():
    both = config_map("one", a="1") + "\n" + config_map("two", a="1")
    env = {"KUBECTL_APPLYSET": "true"}
    arguments = ["kubectl", "apply", "--server-side", "-n", NS, "--prune", "--applyset=parts", "-f", "-"]
    run(*arguments, input=both, env=env)
    assert {"one", "two"} <= {c["metadata"]["name"] for c in get("-n", NS, "configmaps")["items"]}
    done = run(*arguments, input=config_map("one", a="1"), env=env)
    assert "configmap/two pruned" in done.stdout
    assert "two" not in {c["metadata"]["name"] for c in get("-n", NS, "configmaps")["items"]}
    parent = get("-n", NS, "secret/parts")
    assert parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"] == "ConfigMap"


DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    schema: &schema
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer}
              tags: {type: array, items: {type: string}, x-kubernetes-list-type: set}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, color: {type: string}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v2
    served: true
    storage: false
    schema: *schema
"""


def gadget(version="v1", **spec):
    return json.dumps({"apiVersion": f"example.com/{version}", "kind": "Gadget", "metadata": {"name": "g", "namespace": NS}, "spec": spec})


def test_custom_resources_are_merged_by_their_schema():
    kubectl("apply", "--server-side", "-f", "-", input=DEFINITION)
    kubectl("wait", "--for=condition=Established", "crd/gadgets.example.com", "--timeout=30s")
    eventually("the kind", lambda: "gadgets" in kubectl("api-resources", "--api-group=example.com"))
    try:
        apply(gadget(tags=["a"], parts=[{"name": "x", "color": "red"}]), "--field-manager=first")
        apply(gadget(tags=["b"], parts=[{"name": "y", "color": "blue"}], size=1), "--field-manager=second")
        spec = get("-n", NS, "gadgets.v1.example.com/g")["spec"]
        assert sorted(spec["tags"]) == ["a", "b"] and {p["name"] for p in spec["parts"]} == {"x", "y"}
        apply(gadget(), "--field-manager=first")
        spec = get("-n", NS, "gadgets.v1.example.com/g")["spec"]
        assert spec["tags"] == ["b"] and spec["parts"] == [{"name": "y", "color": "blue"}]
        kubectl("-n", NS, "scale", "gadgets.v1.example.com/g", "--replicas=5")
        assert managers("gadgets.v1.example.com/g")[("kubectl", "Update", "scale")] == {"f:spec": {"f:size": {}}}
        # Another version of the same object: the managers of the first keep their fields.
        apply(gadget("v2", size=7), "--field-manager=third", "--force-conflicts")
        spec = get("-n", NS, "gadgets.v1.example.com/g")["spec"]
        assert spec["size"] == 7 and spec["tags"] == ["b"]
    finally:
        kubectl("delete", "crd", "gadgets.example.com", "--timeout=60s")


def test_a_storage_migration_writes_all_objects_in_the_version_of_today():
    kubectl("apply", "--server-side", "-f", "-", input=DEFINITION)
    kubectl("wait", "--for=condition=Established", "crd/gadgets.example.com", "--timeout=30s")
    try:
        eventually("the kind", lambda: apply(gadget(size=1)))
        storage = [{"op": "replace", "path": f"/spec/versions/{i}/storage", "value": i == 1} for i in (0, 1)]
        kubectl("patch", "crd", "gadgets.example.com", "--type=json", "-p", json.dumps(storage))
        status = get("crd/gadgets.example.com")["status"]
        assert status["storedVersions"] == ["v1", "v2"]
        before = get("-n", NS, "gadget/g")["metadata"]["resourceVersion"]
        migration = {"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration", "metadata": {"name": "gadgets"},
                     "spec": {"resource": {"group": "example.com", "resource": "gadgets"}}}
        kubectl("create", "-f", "-", input=json.dumps(migration))
        kubectl("wait", "--for=condition=Succeeded", "storageversionmigration/gadgets", "--timeout=60s")
        assert get("-n", NS, "gadget/g")["metadata"]["resourceVersion"] != before, "written anew"
        eventually("the stored versions", lambda: get("crd/gadgets.example.com")["status"]["storedVersions"] == ["v2"])
        eventually("the end", lambda: "MigrationCompleted" in kubectl("get", "storageversionmigration/gadgets", "-o", "yaml"))
    finally:
        run("kubectl", "delete", "storageversionmigration", "gadgets", check=False)
        kubectl("delete", "crd", "gadgets.example.com", "--timeout=60s")
