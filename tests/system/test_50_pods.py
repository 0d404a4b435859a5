"""What pods are promised: volumes, environment, limits, probes, hooks, security, termination."""
import json

import pytest
from lab import DEMO_IMAGE, eventually, get, kubectl, run

NS = "pod-test"


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NS)
    yield
    kubectl("delete", "namespace", NS, "--timeout=180s")


def start(name, script="sleep 100000", container=None, **spec):
    c = {"name": "c", "image": DEMO_IMAGE, "command": ["/bin/sh", "-c", script], **(container or {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS, "labels": {"app": name}},
           "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [c], **spec}}
    kubectl("apply", "-f", "-", input=json.dumps(pod))


def finished(name, phase="Succeeded"):
    eventually(f"{name} {phase}", lambda: get("pod", name, "-n", NS)["status"]["phase"] == phase)
    return kubectl("-n", NS, "logs", name)


def inside(name, *command):
    return kubectl("-n", NS, "exec", name, "--", *command)


def test_init_containers_run_in_order_before_the_rest():
    init = [{"name": f"i{i}", "image": DEMO_IMAGE, "command": ["/bin/sh", "-c", f"echo {i} >> /shared/order"], "volumeMounts": [{"name": "s", "mountPath": "/shared"}]} for i in (1, 2)]
    start("init", "cat /shared/order", {"volumeMounts": [{"name": "s", "mountPath": "/shared"}]}, initContainers=init, volumes=[{"name": "s", "emptyDir": {}}])
    assert finished("init").split() == ["1", "2"]


def test_volumes_of_configuration_follow_their_objects():
    kubectl("-n", NS, "create", "configmap", "conf", "--from-literal=key=one")
    kubectl("-n", NS, "create", "secret", "generic", "sec", "--from-literal=password=hidden")
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in ("conf", "sec", "info", "all")]
    start("volumes", container={"volumeMounts": mounts}, volumes=[
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}])
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/volumes", "--timeout=60s")
    assert inside("volumes", "cat", "/conf/key") == "one"
    assert inside("volumes", "cat", "/sec/password") == "hidden"
    assert inside("volumes", "stat", "-L", "-c", "%a", "/sec/password").strip() == "400"
    assert 'app="volumes"' in inside("volumes", "cat", "/info/labels")
    assert inside("volumes", "cat", "/all/token").count(".") == 2 and "BEGIN CERTIFICATE" in inside("volumes", "cat", "/all/ca.crt")
    kubectl("-n", NS, "patch", "configmap", "conf", "-p", '{"data":{"key":"two"}}')
    eventually("the update", lambda: inside("volumes", "cat", "/conf/key") == "two")
    kubectl("-n", NS, "label", "pod", "volumes", "fresh=yes")
    eventually("the label", lambda: 'fresh="yes"' in inside("volumes", "cat", "/info/labels"))


def test_environment_from_everywhere():
    kubectl("-n", NS, "create", "configmap", "env", "--from-literal=FROM_MAP=m")
    start("env", "env", {"env": [
        {"name": "A", "value": "a"}, {"name": "B", "value": "$(A)-b $$(A)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
        "envFrom": [{"configMapRef": {"name": "env"}}], "resources": {"limits": {"memory": "64Mi"}}})
    lines = finished("env").splitlines()
    for line in ("A=a", "B=a-b $(A)", "CPU=64", "FROM_MAP=m", "HOSTNAME=env"):
        assert line in lines, line
    assert any(line.startswith("IP=10.42.") for line in lines) and "KUBERNETES_SERVICE_HOST=10.43.0.1" in lines


def test_a_missing_configuration_is_said():
    start("lacking", container={"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]})
    state = eventually("the reason", lambda: get("pod", "lacking", "-n", NS)["status"]["containerStatuses"][0]["state"]["waiting"]
                       if get("pod", "lacking", "-n", NS)["status"].get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError" else None)
    assert 'configmap "absent" not found' in state["message"]
    kubectl("-n", NS, "delete", "pod", "lacking", "--grace-period=0", "--force")


def test_memory_limit_kills_and_says_so():
    start("greedy", "x=a; while true; do x=$x$x; done", {"resources": {"limits": {"memory": "24Mi"}}})
    eventually("the kill", lambda: get("pod", "greedy", "-n", NS)["status"]["phase"] == "Failed")
    state = get("pod", "greedy", "-n", NS)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_security_context_is_what_the_process_gets():
    start("secure", "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || true", {
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}},
        securityContext={"fsGroup": 3456})
    text = finished("secure")
    assert text.split()[:2] == ["1234", "2345"] and "3456" in text.splitlines()[2]
    assert "CapEff:\t0000000000000000" in text and "NoNewPrivs:\t1" in text and "Seccomp:\t2" in text and "Read-only file system" in text
    start("root", container={"securityContext": {"runAsNonRoot": True}})
    eventually("a refusal", lambda: "runAsNonRoot" in json.dumps(get("pod", "root", "-n", NS)["status"]))


def test_probes_restart_and_gate():
    start("alive", "touch /tmp/ok; sleep 100000", {
        "livenessProbe": {"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 2},
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}}, restartPolicy="Always")
    eventually("started", lambda: get("pod", "alive", "-n", NS)["status"]["containerStatuses"][0].get("started"))
    assert get("pod", "alive", "-n", NS)["status"]["containerStatuses"][0]["ready"] is False
    inside("alive", "touch", "/tmp/ready")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/alive", "--timeout=30s")
    inside("alive", "rm", "/tmp/ok")
    eventually("a restart", lambda: get("pod", "alive", "-n", NS)["status"]["containerStatuses"][0]["restartCount"] == 1)
    events = kubectl("-n", NS, "get", "events")
    assert "Liveness probe failed" in events and "Readiness probe failed" in events and "failed liveness probe, will be restarted" in events


def test_hooks_and_termination_messages():
    start("hooked", "echo -n the end > /dev/termination-log; cat /tmp/from-hook", {
        "lifecycle": {"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo hook > /tmp/from-hook"]}}},
        "command": ["/bin/sh", "-c", "while ! test -e /tmp/from-hook; do sleep 0.1; done; echo -n the end > /dev/termination-log; cat /tmp/from-hook"]})
    assert finished("hooked").strip() == "hook"
    assert get("pod", "hooked", "-n", NS)["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "the end"
    start("falls", "echo last words; exit 4", {"terminationMessagePolicy": "FallbackToLogsOnError"})
    finished("falls", "Failed")
    state = get("pod", "falls", "-n", NS)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["exitCode"] == 4 and state["message"].strip() == "last words"


def test_a_program_that_is_not_there():
    start("absent", container={"command": ["/no/such/program"]})
    def reason():
        status = get("pod", "absent", "-n", NS)["status"]["containerStatuses"][0]
        return next((s for s in (status["state"].get("waiting"), status["state"].get("terminated")) if s and "no such file or directory" in s.get("message", "")), None)
    eventually("the reason", reason)


def test_pod_hosts_and_names():
    start("named", "cat /etc/hosts; hostname; cat /etc/resolv.conf", hostAliases=[{"ip": "10.1.2.3", "hostnames": ["other"]}], hostname="custom", subdomain="sub")
    text = finished("named")
    assert "10.1.2.3\tother" in text and "custom.sub.pod-test.svc.cluster.local" in text and "nameserver 10.43.0.10" in text and "options ndots:5" in text


def test_host_port_and_sub_path():
    kubectl("-n", NS, "create", "configmap", "page", "--from-literal=index.html=from the map")
    start("ported", container={"command": ["httpd", "-f", "-p", "8080", "-h", "/www"], "ports": [{"containerPort": 8080, "hostPort": 18080}],
                               "volumeMounts": [{"name": "p", "mountPath": "/www/index.html", "subPath": "index.html"}]},
          volumes=[{"name": "p", "configMap": {"name": "page"}}])
    ip = get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    eventually("the host port", lambda: "from the map" in run("curl", "-fsS", f"http://{ip}:18080/").stdout)
