"""Stock kubectl: every everyday verb, as a user types it."""
import json
import os
import pty
import re
import select
import subprocess
import time

import pytest
from lab import DEMO_IMAGE, eventually, get, kubectl, refused, remove_namespace, run

NS = "kubectl-test"
DEPLOYMENT = f"""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  namespace: {NS}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: app}}}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: {DEMO_IMAGE}
        command: ["/bin/sh", "-c", "echo started; httpd -f -p 8080 -h /www"]
        env: [{{name: GREETING, value: hello}}]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"""


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NS)
    kubectl("apply", "-f", "-", input=DEPLOYMENT)
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")
    yield
    remove_namespace(NS)


def pod():
    items = get("pods", "-n", NS, "-l", "app=app")["items"]
    ready = [p for p in items if not p["metadata"].get("deletionTimestamp") and p["status"].get("phase") == "Running"]
    return ready[0]["metadata"]["name"]


def test_get_in_all_its_shapes():
    table = kubectl("-n", NS, "get", "pods")
    assert re.match(r"NAME +READY +STATUS +RESTARTS +AGE", table) and "1/1     Running" in table
    wide = kubectl("-n", NS, "get", "pods", "-o", "wide")
    assert "NOMINATED NODE" in wide and "READINESS GATES" in wide and "10.42." in wide
    assert "READY   UP-TO-DATE   AVAILABLE" in kubectl("-n", NS, "get", "deployments")
    assert "kind: Deployment" in kubectl("-n", NS, "get", "deployment/app", "-o", "yaml")
    assert kubectl("-n", NS, "get", "deploy", "app", "-o", "jsonpath={.spec.replicas}") == "2"
    columns = kubectl("-n", NS, "get", "deploy", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas")
    assert re.search(r"app +2", columns)
    names = kubectl("get", "pods", "-A", "--sort-by=.metadata.creationTimestamp", "-o", "name").split()
    assert any("cluster-dns" in n for n in names)
    for kind in ("nodes", "services", "endpoints", "endpointslices", "configmaps", "secrets", "events", "replicasets", "ingresses", "namespaces",
                 "serviceaccounts", "clusterroles", "leases", "storageclasses", "jobs", "cronjobs", "daemonsets", "statefulsets", "pvc", "pv", "hpa", "pdb",
                 "priorityclasses", "networkpolicies", "csr", "crd", "apiservices"):
        if kind in ("crd", "apiservices"):
            run("kubectl", "get", kind, "-A", check=False)
        else:
            kubectl("get", kind, "-A")


def read_until(stream, wanted, timeout=60):
    """Reads the descriptor itself, so that nothing hides in a buffer."""
    seen, end = b"", time.monotonic() + timeout
    while wanted not in seen:
        assert time.monotonic() < end, f"{wanted} did not come; seen: {seen}"
        if select.select([stream], [], [], 1)[0]:
            piece = os.read(stream.fileno(), 65536)
            assert piece, f"ended before {wanted}; seen: {seen}"
            seen += piece
    return seen.decode()


def test_watch_shows_changes_as_they_happen():
    watcher = subprocess.Popen(["kubectl", "-n", NS, "get", "configmaps", "-w", "-o", "name"], stdout=subprocess.PIPE)
    try:
        kubectl("-n", NS, "create", "configmap", "watched", "--from-literal=a=1")
        read_until(watcher.stdout, b"configmap/watched\n")
    finally:
        watcher.kill()
        watcher.wait()


def test_describe_tells_the_story():
    text = kubectl("-n", NS, "describe", "pod", pod())
    for part in ("Node:", "Containers:", "GREETING:", "Conditions:", "QoS Class:", "Scheduled", "Successfully assigned", "Created", "Started"):
        assert part in text, part
    assert "NewReplicaSet" in kubectl("-n", NS, "describe", "deployment", "app")
    assert "Allocatable:" in kubectl("describe", "nodes")


def test_apply_diff_edit_patch_label_annotate():
    assert "unchanged" in kubectl("apply", "-f", "-", input=DEPLOYMENT)
    changed = DEPLOYMENT.replace("value: hello", "value: goodbye")
    diff = run("kubectl", "diff", "-f", "-", input=changed, check=False)
    assert diff.returncode == 1 and "goodbye" in diff.stdout
    kubectl("-n", NS, "create", "configmap", "edited", "--from-literal=key=old")
    run("kubectl", "-n", NS, "edit", "configmap", "edited", env={"KUBE_EDITOR": "sed -i s/old/new/"})
    assert get("configmap", "edited", "-n", NS)["data"]["key"] == "new"
    kubectl("-n", NS, "patch", "configmap", "edited", "-p", '{"data":{"more":"1"}}')
    kubectl("-n", NS, "patch", "configmap", "edited", "--type=merge", "-p", '{"data":{"key":null}}')
    kubectl("-n", NS, "patch", "configmap", "edited", "--type=json", "-p", '[{"op":"add","path":"/data/third","value":"3"}]')
    assert get("configmap", "edited", "-n", NS)["data"] == {"more": "1", "third": "3"}
    kubectl("-n", NS, "label", "configmap", "edited", "tier=front")
    assert kubectl("-n", NS, "get", "cm", "-l", "tier=front", "-o", "name").strip() == "configmap/edited"
    kubectl("-n", NS, "label", "configmap", "edited", "tier-")
    kubectl("-n", NS, "annotate", "configmap", "edited", "note=one")
    assert get("configmap", "edited", "-n", NS)["metadata"]["annotations"]["note"] == "one"
    assert "--overwrite is false" in refused("-n", NS, "annotate", "configmap", "edited", "note=two")


def test_scale_set_image_and_rollouts():
    kubectl("-n", NS, "scale", "deployment/app", "--replicas=3")
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")
    assert len(get("pods", "-n", NS, "-l", "app=app")["items"]) >= 3
    kubectl("-n", NS, "set", "env", "deployment/app", "GREETING=second")
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")
    assert kubectl("-n", NS, "rollout", "history", "deployment/app").count("<none>") >= 2
    kubectl("-n", NS, "rollout", "undo", "deployment/app")
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")
    env = get("deployment", "app", "-n", NS)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "GREETING", "value": "hello"}]
    kubectl("-n", NS, "rollout", "restart", "deployment/app")
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")
    kubectl("-n", NS, "set", "image", "deployment/app", "main=rk.local/absent:1")
    def waiting():
        states = [c["state"].get("waiting", {}).get("reason") for p in get("pods", "-n", NS)["items"] for c in p["status"].get("containerStatuses", [])]
        return {"ErrImagePull", "ImagePullBackOff"} & set(states)
    eventually("a failed pull", waiting)
    kubectl("-n", NS, "rollout", "undo", "deployment/app")
    kubectl("-n", NS, "rollout", "status", "deployment/app", "--timeout=120s")


def test_expose_and_wait():
    kubectl("-n", NS, "expose", "deployment/app", "--port=80", "--target-port=8080")
    service = get("service", "app", "-n", NS)
    assert service["spec"]["clusterIP"].startswith("10.43.")
    eventually("endpoints", lambda: get("endpoints", "app", "-n", NS).get("subsets"))
    kubectl("-n", NS, "wait", "--for=condition=Available", "deployment/app", "--timeout=60s")
    assert "timed out" in refused("-n", NS, "wait", "--for=condition=Absent", "deployment/app", "--timeout=1s")


def test_logs_follow_and_previous():
    name = pod()
    assert kubectl("-n", NS, "logs", name).startswith("started")
    assert kubectl("-n", NS, "logs", "deployment/app", "--tail=1", "--timestamps").split()[0].startswith("20")
    ticker = ["run", "ticker", "-n", NS, f"--image={DEMO_IMAGE}", "--restart=Always", "--", "sh", "-c", "for i in 1 2 3; do echo tick $i; sleep 1; done; exit 3"]
    kubectl(*ticker)
    eventually("the first line", lambda: "tick 1" in kubectl("-n", NS, "logs", "ticker"))
    followed = run("kubectl", "-n", NS, "logs", "-f", "ticker", timeout=60).stdout
    assert "tick 3" in followed
    eventually("a restart", lambda: get("pod", "ticker", "-n", NS)["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert "tick 3" in kubectl("-n", NS, "logs", "ticker", "--previous")
    state = get("pod", "ticker", "-n", NS)["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert state["exitCode"] == 3 and state["reason"] == "Error"
    kubectl("-n", NS, "delete", "pod", "ticker", "--grace-period=0", "--force")


def test_exec_with_input_exit_code_and_terminal():
    name = pod()
    assert kubectl("-n", NS, "exec", name, "--", "echo", "one", "two").strip() == "one two"
    assert kubectl("-n", NS, "exec", "-i", name, "--", "cat", input="through\n") == "through\n"
    done = run("kubectl", "-n", NS, "exec", name, "--", "sh", "-c", "echo oops >&2; exit 7", check=False)
    assert done.returncode == 7 and "oops" in done.stderr and "exit code 7" in done.stderr
    assert "executable file not found" in refused("-n", NS, "exec", name, "--", "nonesuch")
    leader, follower = pty.openpty()
    shell = subprocess.Popen(["kubectl", "-n", NS, "exec", "-it", name, "--", "sh"], stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    seen = b""
    os.write(leader, b"test -t 0 && echo terminal-$((20+3)); exit 5\n")
    end = time.monotonic() + 60
    while time.monotonic() < end and b"terminal-23" not in seen:
        if select.select([leader], [], [], 1)[0]:
            try:
                seen += os.read(leader, 4096)
            except OSError:
                break
    assert b"terminal-23" in seen, seen
    assert shell.wait(timeout=30) == 5
    os.close(leader)


def test_attach_and_run():
    out = run("kubectl", "-n", NS, "run", "once", "--rm", "-i", f"--image={DEMO_IMAGE}", "--restart=Never", "--", "cat", input="typed\n", timeout=120).stdout
    assert "typed" in out and 'pod "once" deleted' in out
    kubectl("-n", NS, "run", "talker", f"--image={DEMO_IMAGE}", "--restart=Never", "--", "sh", "-c", "while true; do echo said; sleep 1; done")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/talker", "--timeout=60s")
    attached = subprocess.Popen(["kubectl", "-n", NS, "attach", "talker"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        read_until(attached.stdout, b"said\n")
    finally:
        attached.kill()
        attached.wait()
    kubectl("-n", NS, "delete", "pod", "talker", "--grace-period=1")


def test_cp_both_ways(tmp_path):
    name = pod()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    kubectl("-n", NS, "cp", str(source), f"{name}:/tmp/copied")
    kubectl("-n", NS, "cp", f"{name}:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_port_forward():
    kubectl("-n", NS, "exec", pod(), "--", "sh", "-c", "mkdir -p /www; echo forwarded > /www/f.txt")
    forward = subprocess.Popen(["kubectl", "-n", NS, "port-forward", f"pod/{pod()}", ":8080"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        port = re.search(r"127\.0\.0\.1:(\d+)", read_until(forward.stdout, b"->")).group(1)
        for _ in range(5):
            run("curl", "-sS", "-o", "/dev/null", f"http://127.0.0.1:{port}/")
        assert run("curl", "-fsS", f"http://127.0.0.1:{port}/f.txt").stdout.strip() == "forwarded"
    finally:
        forward.kill()
        forward.wait()


def test_delete_with_grace_and_cascade():
    kubectl("-n", NS, "create", "deployment", "short", f"--image={DEMO_IMAGE}", "--", "sleep", "10000")
    eventually("its pod", lambda: get("pods", "-n", NS, "-l", "app=short")["items"])
    kubectl("-n", NS, "delete", "deployment", "short", "--cascade=orphan")
    kept = get("replicasets", "-n", NS, "-l", "app=short")["items"]
    assert kept and eventually("orphaned", lambda: not get("replicasets", "-n", NS, "-l", "app=short")["items"][0]["metadata"].get("ownerReferences"))
    kubectl("-n", NS, "delete", "replicaset", "-l", "app=short", "--cascade=foreground", "--timeout=90s")
    eventually("pods gone", lambda: not get("pods", "-n", NS, "-l", "app=short")["items"], 60)
    kubectl("-n", NS, "run", "stubborn", f"--image={DEMO_IMAGE}", "--", "sh", "-c", "trap '' TERM; while true; do sleep 1; done")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s")
    began = time.monotonic()
    kubectl("-n", NS, "delete", "pod", "stubborn", "--grace-period=2")
    assert time.monotonic() - began < 25


def test_explain_and_discovery():
    text = kubectl("explain", "deployment.spec.strategy.rollingUpdate")
    assert "maxSurge" in text and "IntOrString" in text and "maximum number of pods" in text
    assert "FIELD: nodeName" in kubectl("explain", "pod.spec.nodeName")
    resources = kubectl("api-resources")
    for line in (r"pods +po +v1 +true +Pod", r"deployments +deploy +apps/v1 +true +Deployment", r"nodes +no +v1 +false +Node"):
        assert re.search(line, resources), line
    assert "apps/v1" in kubectl("api-versions").split()
    assert "is running at" in kubectl("cluster-info")
    assert "certificate-authority-data" in kubectl("config", "view", "--minify")
    assert "Started" in kubectl("-n", NS, "events")


def test_auth_can_i():
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    done = run("kubectl", "auth", "can-i", "list", "secrets", "--as=system:serviceaccount:default:default", check=False)
    assert done.stdout.strip() == "no" and done.returncode == 1
    assert "selfsubjectaccessreviews" in kubectl("auth", "can-i", "--list", "--as=system:serviceaccount:default:default")
    assert "system:admin" in kubectl("auth", "whoami")
    kubectl("-n", NS, "create", "serviceaccount", "reader")
    kubectl("-n", NS, "create", "role", "read-pods", "--verb=get,list", "--resource=pods")
    kubectl("-n", NS, "create", "rolebinding", "read-pods", "--role=read-pods", f"--serviceaccount={NS}:reader")
    token = kubectl("-n", NS, "create", "token", "reader").strip()
    config = ["--kubeconfig=/dev/null", f"--server={server()}", "--insecure-skip-tls-verify", f"--token={token}"]
    assert "app" in kubectl(*config, "-n", NS, "get", "pods")
    error = refused(*config, "-n", NS, "get", "secrets")
    assert f'User "system:serviceaccount:{NS}:reader" cannot list resource "secrets" in API group "" in the namespace "{NS}"' in error


def server():
    return json.loads(kubectl("config", "view", "-o", "json"))["clusters"][0]["cluster"]["server"]


def test_kustomize(tmp_path):
    (tmp_path / "cm.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: base}\ndata: {a: b}\n")
    (tmp_path / "kustomization.yaml").write_text(f"namespace: {NS}\nnamePrefix: kust-\nresources: [cm.yaml]\n")
    assert "kust-base" in kubectl("kustomize", str(tmp_path))
    kubectl("apply", "-k", str(tmp_path))
    assert get("configmap", "kust-base", "-n", NS)["data"] == {"a": "b"}


def test_bad_input_is_refused_as_upstream_words_it():
    def apply(text):
        return refused("apply", "-f", "-", input=text)

    assert "did not find expected" in apply("a: [") or "error" in apply("a: [")
    base = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: bad, namespace: {NS}}}\nspec: {{containers: [{{name: c, image: x}}]}}\n"
    assert 'unknown field "spec.containers[0].imagee"' in apply(base.replace("image: x", "image: x, imagee: y"))
    assert "cannot unmarshal" in apply(base.replace("name: c,", "name: c, args: text,")) or "expected" in apply(base.replace("name: c,", "name: c, args: text,"))
    long = "n" * 300
    assert "must be no more than 253" in apply(base.replace("name: bad", f"name: {long}"))
    assert "spec.containers[0].name: Invalid value" in apply(base.replace("name: c,", "name: C_c,"))
    assert "spec.containers[0].image: Required value" in apply(base.replace("image: x", "imagePullPolicy: Never"))
    assert 'Unsupported value: "Sometimes"' in apply(base.replace("spec: {", "spec: {restartPolicy: Sometimes, "))
    assert "no matches for kind" in apply(base.replace("apiVersion: v1", "apiVersion: v9"))
    kubectl("-n", NS, "create", "configmap", "twice")
    assert 'configmaps "twice" already exists' in refused("-n", NS, "create", "configmap", "twice")
    assert 'pods "none" not found' in refused("-n", NS, "get", "pod", "none")
    assert "pod updates may not change fields other than" in refused("-n", NS, "patch", "pod", pod(), "-p", '{"spec":{"dnsPolicy":"None"}}')
    service = f"apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: {NS}}}\nspec: {{ports: [{{port: 99999}}]}}\n"
    assert "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive" in apply(service)
    server_side = refused("apply", "--server-side", "-f", "-", input=base.replace("image: x", "image: x, imagee: y"))
    assert '.spec.containers[name="c"].imagee: field not declared in schema' in server_side
    nested = refused("create", "--raw", f"/api/v1/namespaces/{NS}/configmaps", "-f", "-", input="[" * 100_000)
    assert "exceeded max depth" in nested
    absent = refused("-n", NS, "patch", "configmap", "twice", "--type=json", "-p", '[{"op":"remove","path":"/data/none"}]')
    assert absent.startswith("The request is invalid: "), absent
    level = refused("label", "namespace", NS, "pod-security.kubernetes.io/enforce=none")
    assert 'Invalid value: "none": must be one of privileged, baseline, restricted' in level


def test_a_job_gets_its_selector():
    kubectl("-n", NS, "create", "job", "once", f"--image={DEMO_IMAGE}", "--", "true")
    job = get("job", "-n", NS, "once")
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["job-name"] == labels["batch.kubernetes.io/job-name"] == "once"
    assert labels["controller-uid"] == labels["batch.kubernetes.io/controller-uid"] == uid


def test_raising_a_pod_security_level_names_the_pods_that_break_it():
    level = "pod-security.kubernetes.io/enforce=restricted"
    warned = run("kubectl", "label", "namespace", NS, level, "--dry-run=server").stderr
    assert f'existing pods in namespace "{NS}" violate the new PodSecurity enforce level "restricted:latest"' in warned
