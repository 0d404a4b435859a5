"""The Python client with a kind of its own; it fails with the first thing that is not as it should be."""
import contextlib

from kubernetes import client, config, dynamic, watch

STAR = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "stars.sky.example.com"},
    "spec": {"group": "sky.example.com", "scope": "Cluster", "names": {"plural": "stars", "singular": "star", "kind": "Star"}, "versions": [
        {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"light": {"type": "number", "default": 1.5}, "names": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}},
            "status": {"type": "object", "properties": {"seen": {"type": "boolean"}}}}}}}]}}


def established(definition):
    return any(c.type == "Established" and c.status == "True" for c in definition.status.conditions or [])


@contextlib.contextmanager
def refused(status):
    try:
        yield
    except client.ApiException as error:
        assert error.status == status, error
    else:
        raise AssertionError(f"nothing was refused with {status}")


def typed_objects(python):
    """Its types refuse an answer that lacks what Go always writes."""
    apps, policy = client.AppsV1Api(python), client.PolicyV1Api(python)
    labels = {"app": "typed"}
    pod = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(node_selector={"no": "node"}, containers=[client.V1Container(name="c", image="c")]))
    shared = {"selector": client.V1LabelSelector(match_labels=labels), "template": pod}
    meta = client.V1ObjectMeta(name="typed")
    made = apps.create_namespaced_stateful_set("default", client.V1StatefulSet(metadata=meta, spec=client.V1StatefulSetSpec(service_name="typed", replicas=0, **shared)))
    assert (made.status.replicas, made.spec.update_strategy.rolling_update.max_unavailable) == (0, 1)
    assert apps.create_namespaced_daemon_set("default", client.V1DaemonSet(metadata=meta, spec=client.V1DaemonSetSpec(**shared))).status.number_ready == 0
    assert apps.create_namespaced_replica_set("default", client.V1ReplicaSet(metadata=meta, spec=client.V1ReplicaSetSpec(replicas=0, **shared))).status.replicas == 0
    budget = client.V1PodDisruptionBudget(metadata=meta, spec=client.V1PodDisruptionBudgetSpec(selector=shared["selector"], max_unavailable=1))
    assert policy.create_namespaced_pod_disruption_budget("default", budget).status.expected_pods == 0
    for delete in (apps.delete_namespaced_stateful_set, apps.delete_namespaced_daemon_set, apps.delete_namespaced_replica_set, policy.delete_namespaced_pod_disruption_budget):
        delete("typed", "default")


def main():
    python = config.new_client_from_config()
    typed_objects(python)
    definitions, objects = client.ApiextensionsV1Api(python), client.CustomObjectsApi(python)
    where = ("sky.example.com", "v1", "stars")
    definitions.create_custom_resource_definition(STAR)
    for event in watch.Watch().stream(definitions.list_custom_resource_definition, field_selector="metadata.name=stars.sky.example.com", timeout_seconds=60):
        if established(event["object"]):
            break
    else:
        raise AssertionError("the definition is not established")
    try:
        first = objects.list_cluster_custom_object(*where)["metadata"]["resourceVersion"]
        star = {"apiVersion": "sky.example.com/v1", "kind": "Star", "metadata": {"name": "vega"}, "spec": {"names": {"ar": ["an-nasr", {"al": 1}]}}}
        made = objects.create_cluster_custom_object(*where, star)
        assert made["spec"] == {"light": 1.5, "names": {"ar": ["an-nasr", {"al": 1}]}}
        patched = objects.patch_cluster_custom_object(*where, "vega", {"spec": {"light": 0.03, "names": {"ar": None}}})
        assert patched["spec"] == {"light": 0.03, "names": {}}
        objects.patch_cluster_custom_object_status(*where, "vega", {"status": {"seen": True}})
        made["spec"]["light"] = 2
        with refused(409):
            objects.replace_cluster_custom_object(*where, "vega", made)
        objects.delete_cluster_custom_object(*where, "vega")
        seen = watch.Watch().stream(objects.list_cluster_custom_object, *where, resource_version=first, timeout_seconds=2)
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [("ADDED", "vega"), ("MODIFIED", "vega"), ("MODIFIED", "vega"), ("DELETED", "vega")]

        # What the dynamic client knows comes from discovery.
        stars = dynamic.DynamicClient(python).resources.get(api_version="sky.example.com/v1", kind="Star")
        assert (stars.namespaced, "status" in stars.subresources) == (False, True)
        applied = stars.server_side_apply({**star, "spec": {"light": 3}}, name="vega", field_manager="telescope")
        assert (applied.spec.light, applied.metadata.managedFields[0].manager) == (3, "telescope")
        assert [s.metadata.name for s in stars.get().items] == ["vega"]
        with refused(409):
            stars.server_side_apply({**star, "spec": {"light": 4}}, name="vega", field_manager="other")
    finally:
        definitions.delete_custom_resource_definition("stars.sky.example.com")


if __name__ == "__main__":
    main()
