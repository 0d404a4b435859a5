"""An autoscaler follows what its pods really use: up under load, down after it."""
import json

import pytest
from lab import DEMO_IMAGE, eventually, get, kubectl, remove_namespace

NS = "autoscaling-test"


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NS)
    yield
    remove_namespace(NS)


def apply(document):
    kubectl("apply", "-n", NS, "-f", "-", input=json.dumps(document))


def condition(name, kind):
    return next((c for c in get("hpa", name, "-n", NS).get("status", {}).get("conditions", []) if c["type"] == kind), {})


def test_a_busy_deployment_grows_and_shrinks_again():
    # Busy while the file says so; it is one file for all pods.
    script = 'while true; do if [ "$(cat /load/busy)" = yes ]; then n=0; while [ $n -lt 5000 ]; do n=$((n+1)); done; else sleep 0.2; fi; done'
    kubectl("-n", NS, "create", "configmap", "load", "--from-literal=busy=yes")
    container = {"name": "c", "image": DEMO_IMAGE, "command": ["/bin/sh", "-c", script], "volumeMounts": [{"name": "load", "mountPath": "/load"}],
                 "resources": {"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}}}
    apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "busy"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "busy"}}, "template": {"metadata": {"labels": {"app": "busy"}}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [{"name": "load", "configMap": {"name": "load"}}]}}}})
    apply({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "busy"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"}, "minReplicas": 1, "maxReplicas": 3,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}})
    replicas = lambda: get("deployment", "busy", "-n", NS)["spec"]["replicas"]  # noqa: E731
    eventually("three replicas", lambda: replicas() == 3, 420)
    status = get("hpa", "busy", "-n", NS)["status"]
    assert status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 100
    assert condition("busy", "ScalingActive")["reason"] == "ValidMetricFound"
    events = get("events", "-n", NS, "--field-selector", "involvedObject.name=busy,reason=SuccessfulRescale")["items"]
    assert any(e["message"].endswith("reason: cpu resource utilization (percentage of request) above target") for e in events), events
    kubectl("-n", NS, "patch", "configmap", "load", "-p", '{"data":{"busy":"no"}}')
    eventually("one replica", lambda: replicas() == 1, 420)
    events = get("events", "-n", NS, "--field-selector", "involvedObject.name=busy,reason=SuccessfulRescale")["items"]
    assert any(e["message"] == "New size: 1; reason: All metrics below target" for e in events), events


def test_what_is_missing_is_said():
    apply({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "nothing"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"}, "maxReplicas": 3}})
    said = eventually("the condition", lambda: condition("nothing", "AbleToScale"))
    assert said["reason"] == "FailedGetScale" and 'deployments.apps "absent" not found' in said["message"]
    kubectl("-n", NS, "create", "deployment", "greedy", f"--image={DEMO_IMAGE}", "--", "sleep", "100000")
    kubectl("-n", NS, "autoscale", "deployment", "greedy", "--min=2", "--max=3", "--cpu-percent=50")
    eventually("two replicas", lambda: get("deployment", "greedy", "-n", NS)["spec"]["replicas"] == 2)
    said = eventually("the condition", lambda: condition("greedy", "ScalingActive"), 420)
    assert said["reason"] == "FailedGetResourceMetric" and said["message"].startswith("the HPA was unable to compute the replica count: failed to get cpu utilization: ")
