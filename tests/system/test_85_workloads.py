"""What a user runs in the first week, on three machines with stock kubectl; at last one of the machines is lost."""
import json
import subprocess
import time

import lab
import pytest
import turns
from lab import eventually, run
from machines import Machines

NAME = "workloads"
DEMO = "rk.local/demo:1"
POSTGRES = "rk.local/postgres:15"
AGENTS = ("agent-1", "agent-2")


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    made = Machines(NAME)
    demo = tmp_path_factory.mktemp("image") / "demo.tar"
    run(lab.ROOT / "installer/demo-image.sh", demo, DEMO)
    postgres = lab.CACHE / "postgres-15.tar"
    if not postgres.exists():
        run(lab.ROOT / "tests/system/postgres-image.sh", postgres, POSTGRES)
    made.up()
    try:
        for machine in ("server-1", *AGENTS):
            made.on(machine, "rk", "image", "import", demo)
        for machine in AGENTS:
            made.on(machine, "rk", "image", "import", postgres)
        # What follows is about agents; the server's node has the system's own pods.
        made.kubectl("taint", "node", "server-1", "only=system:NoSchedule")
        yield made
    finally:
        made.task("down")


def container(script, image=DEMO, **more):
    return {"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sh", "-c", script], **more}


def apply(machines, kind, name, spec, api="apps/v1"):
    machines.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}))


def workload(machines, kind, name, pod, **spec):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 5, **pod}}
    apply(machines, kind, name, {"selector": {"matchLabels": labels}, "template": template, **spec})


def pods(machines, app):
    return machines.get("pods", "-l", f"app={app}")["items"]


def website(version):
    """A web server that says its version; a moment passes between the end of its endpoint and its own."""
    return {"containers": [container(
        f"echo {version} > /www/index.html; exec httpd -f -p 8080 -h /www",
        securityContext={"runAsUser": 0},
        readinessProbe={"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
        lifecycle={"preStop": {"exec": {"command": ["sleep", "2"]}}})]}


class Visitor:
    """Asks the Service again and again from one of the machines, and counts what fails."""

    SCRIPT = """
        while [ ! -e $2 ]; do
            curl -s --max-time 3 http://$1/ >> $2.answers || echo "failed $?" >> $2.answers
        done"""

    def __init__(self, machines, machine, address):
        self.machines, self.machine, self.stop = machines, machine, f"/tmp/stop-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [machines.xtask, "lab", "exec", "--name", NAME, machine, "--", "sh", "-c", self.SCRIPT, "sh", address, self.stop])

    def answers(self):
        self.machines.on(self.machine, "touch", self.stop)
        self.process.wait(timeout=30)
        return self.machines.on(self.machine, "cat", self.stop + ".answers").stdout.split("\n")[:-1]


def test_a_rolling_update_and_a_rollback_fail_no_request(machines):
    workload(machines, "Deployment", "web", website("one"), replicas=3)
    machines.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    machines.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    address = machines.get("service", "web")["spec"]["clusterIP"]
    eventually("the first answer", lambda: machines.on("agent-1", "curl", "-sf", f"http://{address}/").stdout == "one\n")
    visitors = [Visitor(machines, machine, address) for machine in AGENTS]
    workload(machines, "Deployment", "web", website("two"), replicas=3)
    machines.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    eventually("the new version", lambda: machines.on("agent-1", "curl", "-sf", f"http://{address}/").stdout == "two\n")
    machines.kubectl("rollout", "undo", "deployment/web")
    machines.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    time.sleep(3)
    for visitor in visitors:
        answers = visitor.answers()
        assert len(answers) > 100 and set(answers) == {"one", "two"}, {a: answers.count(a) for a in set(answers)}
        assert answers[0] == "one" and answers[-1] == "one"
    assert "3" in machines.kubectl("rollout", "history", "deployment/web")


def psql(machines, sql):
    return machines.kubectl("exec", "db-0", "--", "/usr/lib/postgresql/15/bin/psql", "-h", "/var/run/postgresql", "-U", "postgres", "-Atc", sql).strip()


def volume_of(machines, claim):
    volume = machines.get("pvc", claim)["spec"]["volumeName"]
    return machines.get("pv", volume)


def test_a_database_keeps_its_data(machines):
    """PostgreSQL with a claim that names no class."""
    size = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    probe = {"exec": {"command": ["/usr/lib/postgresql/15/bin/pg_isready", "-h", "/var/run/postgresql"]}, "periodSeconds": 1}
    pod = {"securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999}, "containers": [container(
        "exec /usr/local/bin/run-postgres", POSTGRES, env=[{"name": "PGDATA", "value": "/data/pg"}], readinessProbe=probe,
        volumeMounts=[{"name": "data", "mountPath": "/data"}])]}
    workload(machines, "StatefulSet", "db", pod, serviceName="db", replicas=1,
             volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": size}])
    machines.kubectl("rollout", "status", "statefulset/db", "--timeout=120s")
    psql(machines, "create table visits as select generate_series(1, 1000) as n")
    first = machines.get("pod", "db-0")
    # Its machine kills the server's process: the container starts anew on the same data.
    machines.on(first["spec"]["nodeName"], "sh", "-c", "kill -9 $(pgrep -o -x postgres)")
    eventually("a restart", lambda: machines.get("pod", "db-0")["status"]["containerStatuses"][0]["restartCount"] == 1)
    machines.kubectl("wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s")
    assert psql(machines, "select sum(n) from visits") == "500500"
    # The pod is killed: another one of its name has the same data.
    machines.kubectl("delete", "pod", "db-0", "--timeout=60s")
    machines.kubectl("rollout", "status", "statefulset/db", "--timeout=120s")
    assert machines.get("pod", "db-0")["metadata"]["uid"] != first["metadata"]["uid"]
    assert psql(machines, "select sum(n) from visits") == "500500"
    assert machines.get("pod", "db-0")["spec"]["nodeName"] == first["spec"]["nodeName"]
    volume = volume_of(machines, "data-db-0")
    assert volume["spec"]["storageClassName"] == "local-path" and volume["spec"]["capacity"] == {"storage": "1Gi"}
    machines.on(first["spec"]["nodeName"], "test", "-f", volume["spec"]["local"]["path"] + "/pg/PG_VERSION")


def test_a_volume_goes_with_its_claim_and_a_kept_one_stays(machines):
    volume = volume_of(machines, "data-db-0")
    node, path = machines.get("pod", "db-0")["spec"]["nodeName"], volume["spec"]["local"]["path"]
    machines.kubectl("delete", "statefulset", "db")
    machines.kubectl("delete", "pvc", "data-db-0", "--timeout=60s")
    machines.kubectl("wait", "--for=delete", f"pv/{volume['metadata']['name']}", "--timeout=60s")
    assert machines.on(node, "test", "-e", path, check=False).returncode == 1
    eventually("no pod that removes", lambda: "remove-" not in machines.kubectl("-n", "kube-system", "get", "pods"))

    kept = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "kept"}, "provisioner": "rk.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Retain"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"}, "spec": {
        "storageClassName": "kept", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Mi"}}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": {
        "restartPolicy": "Never", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "kept"}}],
        "containers": [container("id -u > /v/file", securityContext={"runAsUser": 1234}, volumeMounts=[{"name": "v", "mountPath": "/v"}])]}}
    for thing in (kept, claim, pod):
        machines.kubectl("apply", "-f", "-", input=json.dumps(thing))
    machines.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=60s")
    volume = volume_of(machines, "kept")
    node = machines.get("pod", "writer")["spec"]["nodeName"]
    machines.kubectl("delete", "pod/writer", "pvc/kept")
    machines.kubectl("wait", "--for=jsonpath={.status.phase}=Released", f"pv/{volume['metadata']['name']}", "--timeout=60s")
    machines.kubectl("delete", "pv", volume["metadata"]["name"], "--timeout=60s")
    assert machines.on(node, "cat", volume["spec"]["local"]["path"] + "/file").stdout == "1234\n"


def test_a_drain_waits_for_the_budget(machines):
    workload(machines, "DaemonSet", "agentd", {"containers": [container("sleep 100000")], "tolerations": [{"key": "only", "operator": "Exists"}]})
    machines.kubectl("rollout", "status", "daemonset/agentd", "--timeout=60s")
    assert {p["spec"]["nodeName"] for p in pods(machines, "agentd")} == {"server-1", *AGENTS}
    # One pod on each agent, and both are needed.
    workload(machines, "Deployment", "guarded", {
        "containers": [container("sleep 100000")], "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "guarded"}}}]}, replicas=2)
    machines.kubectl("rollout", "status", "deployment/guarded", "--timeout=60s")
    apply(machines, "PodDisruptionBudget", "guarded", {"minAvailable": 2, "selector": {"matchLabels": {"app": "guarded"}}}, "policy/v1")
    eventually("the budget", lambda: machines.get("pdb", "guarded")["status"].get("currentHealthy") == 2)
    node = pods(machines, "guarded")[0]["spec"]["nodeName"]
    drain = ("kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
    blocked = machines.on("hub", *drain, "--timeout=8s", check=False)
    assert blocked.returncode != 0 and "would violate the pod's disruption budget" in blocked.stderr, blocked.stderr
    assert any(p["spec"]["nodeName"] == node for p in pods(machines, "guarded"))
    machines.kubectl("scale", "deployment/guarded", "--replicas=3")
    assert "drained" in machines.on("hub", *drain, "--timeout=90s").stdout
    assert {p["spec"]["nodeName"] for p in pods(machines, "guarded") if "deletionTimestamp" not in p["metadata"]} == set(AGENTS) - {node}
    assert any(p["spec"]["nodeName"] == node for p in pods(machines, "agentd"))
    machines.kubectl("uncordon", node)
    machines.kubectl("delete", "deployment/guarded", "daemonset/agentd", "pdb/guarded")


def job(machines, name, script, **spec):
    pod = {"restartPolicy": "Never", "containers": [container(script)], "terminationGracePeriodSeconds": 1}
    apply(machines, "Job", name, {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}, **spec}, "batch/v1")


def test_an_indexed_job_follows_its_failure_policy(machines):
    job(machines, "indexed", "echo index $JOB_COMPLETION_INDEX", completionMode="Indexed", completions=4, parallelism=2)
    machines.kubectl("wait", "--for=condition=Complete", "job/indexed", "--timeout=60s")
    status = machines.get("job", "indexed")["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0-3", 4)
    logs = machines.kubectl("logs", "-l", "app=indexed", "--tail=-1").split("\n")
    assert sorted(filter(None, logs)) == [f"index {i}" for i in range(4)]
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
             {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    job(machines, "hopeless", "[ $JOB_COMPLETION_INDEX = 1 ] && exit 42; sleep 1000", completionMode="Indexed", completions=3, parallelism=3,
        backoffLimit=6, podFailurePolicy={"rules": rules})
    machines.kubectl("wait", "--for=condition=Failed", "job/hopeless", "--timeout=60s")
    failed = next(c for c in machines.get("job", "hopeless")["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "PodFailurePolicy" and "exit code 42" in failed["message"]


def test_a_cron_job_runs_every_minute(machines):
    pod = {"restartPolicy": "Never", "containers": [container("echo tick")]}
    apply(machines, "CronJob", "tick", {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}, "batch/v1")
    done = eventually("a job", lambda: machines.get("cronjob", "tick")["status"].get("lastSuccessfulTime"), timeout=90)
    assert done
    names = machines.kubectl("get", "jobs", "-o", "name").split()
    assert any(name.startswith("job.batch/tick-") for name in names)
    machines.kubectl("delete", "cronjob", "tick")


@pytest.mark.skipif(not turns.is_day(3), reason="takes three minutes and runs every third day; RK_TEST_ALL=1 runs it, too")
def test_a_lost_machine_costs_what_upstream_says(machines):
    """The lost machine's pods of Deployments are replaced, those of StatefulSets wait for its word, and no Job counts twice."""
    soon = [{"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3} for why in ("not-ready", "unreachable")]
    both = {"tolerations": soon, "topologySpreadConstraints": []}
    sleeper = {"containers": [container("sleep 100000")], **both}
    spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "free"}}}]
    workload(machines, "Deployment", "free", {**sleeper, "topologySpreadConstraints": spread}, replicas=2)
    here = {"nodeSelector": {"kubernetes.io/hostname": "agent-2"}}
    workload(machines, "StatefulSet", "named", {**sleeper, **here}, serviceName="named", replicas=1)
    prefer = {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
        "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["agent-2"]}]}}]}}}
    work = {"restartPolicy": "Never", "containers": [container("[ $(hostname) ] && sleep 90")], **both, **prefer}
    apply(machines, "Job", "counted", {"template": {"metadata": {"labels": {"app": "counted"}}, "spec": work}}, "batch/v1")
    for what in ("deployment/free", "statefulset/named"):
        machines.kubectl("rollout", "status", what, "--timeout=60s")
    eventually("the job's pod", lambda: [p["status"]["phase"] for p in pods(machines, "counted")] == ["Running"])
    assert pods(machines, "counted")[0]["spec"]["nodeName"] == "agent-2"
    named = machines.get("pod", "named-0")["metadata"]["uid"]

    cut = time.monotonic()
    machines.task("link", "agent-2", "cut")
    eventually("agent-2 NotReady", lambda: not machines.ready("agent-2"))
    noticed = time.monotonic() - cut
    assert 35 < noticed < 70, f"a node's grace is 50 s after its last sign of life; noticed after {noticed:.0f} s"
    living = lambda app: [p for p in pods(machines, app) if "deletionTimestamp" not in p["metadata"]]
    eventually("both pods elsewhere", lambda: [p["spec"]["nodeName"] for p in living("free") if p["status"]["phase"] == "Running"] == ["agent-1"] * 2, 60)
    eventually("the job's second pod", lambda: [p["spec"]["nodeName"] for p in living("counted") if p["status"]["phase"] == "Running"] == ["agent-1"], 60)
    time.sleep(5)
    still = machines.get("pod", "named-0")
    assert still["metadata"]["uid"] == named and "deletionTimestamp" in still["metadata"], "nobody knows that it has ended"
    status = machines.get("job", "counted")["status"]
    assert (status.get("succeeded", 0), status["active"]) == (0, 1), status

    machines.task("link", "agent-2", "restore")
    eventually("agent-2 Ready", lambda: machines.ready("agent-2"))
    eventually("a new pod of the set", lambda: machines.get("pod", "named-0")["metadata"]["uid"] != named)
    machines.kubectl("rollout", "status", "statefulset/named", "--timeout=60s")
    machines.kubectl("wait", "--for=condition=Complete", "job/counted", "--timeout=240s")
    status = machines.get("job", "counted")["status"]
    assert (status["succeeded"], status.get("failed", 0), status.get("uncountedTerminatedPods", {})) == (1, status.get("failed", 0), {}), status
    assert status.get("failed", 0) <= 1
