"""What pods are promised: volumes, environment, limits, probes, hooks, security, termination."""
import json

import pytest
from lab import DEMO_IMAGE, eventually, get, kubectl, refused, remove_namespace, run

NS = "pod-test"


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NS)
    yield
    remove_namespace(NS)


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


def test_debug_joins_the_processes_of_its_target():
    start("debugged", "while true; do sleep 77777; done")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/debugged", "--timeout=60s")
    look = "tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/root/bin/sh; exit 3"
    kubectl("-n", NS, "debug", "debugged", "--image", DEMO_IMAGE, "--image-pull-policy=IfNotPresent", "--target=c", "--profile=general", "-c", "dbg", "--", "sh", "-c", look)
    state = eventually("the end of the look", lambda: get("pod", "debugged", "-n", NS)["status"]["ephemeralContainerStatuses"][0]["state"].get("terminated"))
    assert state["exitCode"] == 3
    seen = kubectl("-n", NS, "logs", "debugged", "-c", "dbg")
    assert "sleep 77777" in seen and "/proc/1/root/bin/sh" in seen
    # Without a target it has processes of its own.
    kubectl("-n", NS, "debug", "debugged", "--image", DEMO_IMAGE, "--image-pull-policy=IfNotPresent", "--profile=general", "-c", "own", "--", "cat", "/proc/1/cmdline")
    eventually("its end", lambda: get("pod", "debugged", "-n", NS)["status"]["ephemeralContainerStatuses"][1]["state"].get("terminated"))
    assert kubectl("-n", NS, "logs", "debugged", "-c", "own").startswith("cat\0/proc/1/cmdline")
    # What looks into a container goes with it.
    kubectl("-n", NS, "debug", "debugged", "--image", DEMO_IMAGE, "--image-pull-policy=IfNotPresent", "--target=c", "--profile=general", "-c", "stays", "--", "sleep", "100000")
    assert "nobody" in refused("-n", NS, "debug", "debugged", "--image", DEMO_IMAGE, "--target=nobody", "-c", "no", "--", "true")
    kubectl("-n", NS, "delete", "pod", "debugged", "--timeout=60s")


def test_a_pod_is_resized_in_place_or_waits_for_room():
    cpus = int(get("nodes")["items"][0]["status"]["allocatable"]["cpu"])

    def sized(name, milli):
        start(name, container={"resources": {"requests": {"cpu": f"{milli}m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}})
        kubectl("-n", NS, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def resize(name, resources):
        patch = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        run("kubectl", "-n", NS, "patch", "pod", name, "--subresource=resize", "--type=strategic", "-p", json.dumps(patch))

    def resizes(pod):
        return {c["type"]: c for c in pod["status"]["conditions"] if c["type"].startswith("PodResize")}

    def conditions(name):
        return resizes(get("pod", name, "-n", NS))

    def settled(name):
        pod = get("pod", name, "-n", NS)  # one look: a second one may see a resize done that the first saw under way
        return pod["status"]["observedGeneration"] == pod["metadata"]["generation"] and not resizes(pod) and pod["status"]["containerStatuses"][0]

    sized("small", 10)
    resize("small", {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}})
    status = eventually("the resize", lambda: settled("small"))
    assert status["resources"] == {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}} and status["restartCount"] == 0
    limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert inside("small", "sh", "-c", limit).strip() == str(96 << 20)
    resize("small", {"limits": {"memory": "64Ki"}, "requests": {"memory": "32Ki"}})
    error = eventually("the error", lambda: conditions("small").get("PodResizeInProgress", {}).get("message"))
    assert error.startswith("cannot decrease memory limits: ")
    resize("small", {"limits": {"memory": "96Mi"}, "requests": {"memory": "32Mi"}})
    eventually("the way back", lambda: settled("small"))
    # More than the node has is refused; more than is free waits, and comes when there is room.
    more = refused("-n", NS, "patch", "pod", "small", "--subresource=resize", "-p", json.dumps({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1000"}}}]}}))
    assert "node didn't have enough allocatable resources: cpu, requested: 1000000" in more
    sized("large", cpus * 300)
    resize("small", {"requests": {"cpu": f"{cpus * 850}m"}})
    waiting = eventually("that it waits", lambda: conditions("small").get("PodResizePending"))
    assert waiting["reason"] == "Deferred" and waiting["message"].startswith("Node didn't have enough resource: cpu, requested: ")
    kubectl("-n", NS, "delete", "pod", "large", "--timeout=60s")
    status = eventually("the resize", lambda: settled("small"))
    assert status["resources"]["requests"]["cpu"] in (f"{cpus * 850}m", str(cpus * 850 // 1000)) and status["restartCount"] == 0
    kubectl("-n", NS, "delete", "pod", "small", "--timeout=60s")


def test_a_node_whose_object_is_deleted_registers_again_and_keeps_its_pods():
    start("steady")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/steady", "--timeout=60s")
    pod = get("pod", "steady", "-n", NS)
    node = get("node", pod["spec"]["nodeName"])
    name, before = node["metadata"]["name"], pod["status"]
    kubectl("delete", "node", name)
    again = eventually("the node", lambda: next((n for n in get("nodes")["items"] if n["metadata"]["name"] == name and n["metadata"]["uid"] != node["metadata"]["uid"]), None), 30)
    assert again["spec"]["podCIDR"] == node["spec"]["podCIDR"]
    kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=30s")
    after = get("pod", "steady", "-n", NS)["status"]
    assert (after["podIP"], after["containerStatuses"][0]["containerID"]) == (before["podIP"], before["containerStatuses"][0]["containerID"])
    assert inside("steady", "echo", "here").strip() == "here"
