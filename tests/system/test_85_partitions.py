"""One server and two agents whose links are cut under load, and whose server goes away: nothing is lost, doubled or left behind.

Three short cuts; fifty of 1 to 60 s with RK_TEST_ALL=1; RK_CUTS names another number, RK_CUT_SEED repeats a run's choices.
"""
import json
import os
import random
import re
import threading
import time

import lab
import pytest
from lab import eventually, run
from machines import Machines

ALL = os.environ.get("RK_TEST_ALL") == "1"
CUTS = int(os.environ.get("RK_CUTS") or (50 if ALL else 3))
LONGEST = 60 if CUTS >= 50 else 6
SEED = int(os.environ.get("RK_CUT_SEED") or time.time())
AWAY_SECONDS = 30 if ALL or "RK_CUTS" in os.environ else 10
IMAGE = "rk.local/demo:1"
AGENTS = ["agent-1", "agent-2"]


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    made = Machines("partitions")
    archive = tmp_path_factory.mktemp("image") / "demo.tar"
    run(lab.ROOT / "installer/demo-image.sh", archive, IMAGE)
    made.up()
    try:
        for machine in AGENTS:
            made.on(machine, "rk", "image", "import", archive)
        yield made
    finally:
        made.task("down")


def container(script=None, **more):
    command = {"command": ["sh", "-c", script]} if script else {}
    return {"name": "c", "image": IMAGE, "imagePullPolicy": "Never", **command, **more}


def workload(kind, name, replicas, spec, **more):
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, **more,
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, **spec}}}}


def apply(machines, *objects):
    machines.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def pods(machines, selector=""):
    return machines.get("pods", *(["-l", selector] if selector else []))["items"]


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def on_agents_only(spec):
    hub = {"key": "kubernetes.io/hostname", "operator": "In", "values": AGENTS}
    return {**spec, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [hub]}]}}}}


def spread(name):
    return {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                                           "labelSelector": {"matchLabels": {"app": name}}}]}


def of_rk(machines, machine):
    """What a node has of its pods, and nothing that comes and goes with other things."""
    def lines(*command):
        return machines.on(machine, *command).stdout.splitlines()

    shims = [line for line in lines("ps", "-eo", "args=") if line.startswith("rk-shim")]
    links = sorted(line.split()[1].split("@")[0].rstrip(":") for line in lines("ip", "-o", "link"))
    routes = sorted(line.split()[0] for line in lines("ip", "-o", "-4", "route", "show") if re.match(r"10\.42\.", line))
    cgroups = sorted({line.rsplit("/", 1)[-1] for line in lines(
        "sh", "-c", "find /sys/fs/cgroup -type d -path '*kubepods*' -name 'pod*'")})
    mounts = len([line for line in lines("cat", "/proc/self/mountinfo") if "/var/lib/rk" in line or "/run/rk" in line])
    spaces = sorted(line.split()[0] for line in lines("lsns", "-n", "-t", "net", "-o", "NS"))
    return {"shims": len(shims), "links": links, "routes": routes, "cgroups": cgroups, "mounts": mounts, "network namespaces": len(spaces)}


def test_pods_and_services_go_on_while_the_server_is_away(machines):
    """Requests between nodes by the Service's address and by its name, counted by the clients themselves."""
    # By address, and by a name that the cluster's DNS answers: its pod lives on the server's machine and outlives the server.
    client = """for to in $WEB_SERVICE_HOST web.default.svc.cluster.local; do
      (ok=0; bad=0; while true; do if wget -q -O /dev/null http://$to/; then ok=$((ok+1)); else bad=$((bad+1)); fi; echo $ok $bad > /tmp/$to; sleep 0.05; done) &
    done; wait"""
    apply(machines,
          {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}},
          workload("Deployment", "web", 2, on_agents_only({**spread("web"), "containers": [container("echo here > /www/index.html; exec httpd -f -p 8080 -h /www", securityContext={"runAsUser": 0})]})))
    eventually("web", lambda: len([p for p in pods(machines, "app=web") if is_ready(p)]) == 2)
    apply(machines, workload("Deployment", "client", 2, on_agents_only({**spread("client"), "containers": [container(client)]})))
    eventually("clients", lambda: len([p for p in pods(machines, "app=client") if is_ready(p)]) == 2)
    names = [p["metadata"]["name"] for p in pods(machines, "app=client")]
    ids = {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in pods(machines)}

    def counts():
        return [tuple(map(int, line.split())) for name in names
                for line in machines.kubectl("exec", name, "--", "sh", "-c", "cat /tmp/*.*").splitlines()]

    eventually("the first answers", lambda: len(counts()) == 4 and all(ok > 5 for ok, _ in counts()))
    before = counts()
    machines.task("kill", "server-1")
    time.sleep(AWAY_SECONDS)  # the time itself is the test
    machines.task("start", "server-1")
    after = eventually("the tunnels", counts)
    done = [(ok - ok_before, bad - bad_before) for (ok, bad), (ok_before, bad_before) in zip(after, before)]
    print(f"\nserver away for {AWAY_SECONDS} s; requests answered and failed by each client: {done}")
    assert all(bad == 0 and ok > AWAY_SECONDS for ok, bad in done), done
    assert {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["containerID"] for p in pods(machines)} == ids
    machines.kubectl("delete", "deployment", "client", "web", "--wait=true")
    machines.kubectl("delete", "service", "web")
    eventually("no pod", lambda: not pods(machines))


class Load(threading.Thread):
    """Scales, deletes pods and makes Jobs, as long as the cuts last."""

    def __init__(self, machines, chance):
        super().__init__(daemon=True)
        self.machines, self.random, self.stop, self.jobs, self.failed = machines, chance, threading.Event(), [], []

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
                self.stop.wait(self.random.uniform(0.2, 2))
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.failed.append(repr(error))

    def step(self):
        what = self.random.choice(["scale", "delete", "job"])
        if what == "scale":
            self.machines.kubectl("scale", "deployment", "wide", f"--replicas={self.random.randint(4, 12)}")
        elif what == "delete":
            names = [p["metadata"]["name"] for p in pods(self.machines, "app in (wide,ordered)")]
            self.machines.kubectl("delete", "pod", self.random.choice(names), "--wait=false", "--ignore-not-found")
        elif len(self.jobs) < 60:
            name = f"once-{len(self.jobs)}"
            self.jobs.append(name)
            spec = on_agents_only({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container("sleep 1")]})
            apply(self.machines, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {
                "completions": 1, "backoffLimit": 100, "template": {"spec": spec}}})


def test_cuts_of_links_under_load_double_lose_and_leave_nothing(machines):
    chance = random.Random(SEED)
    before = {machine: of_rk(machines, machine) for machine in AGENTS}
    soon = [{"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}
            for taint in ("not-ready", "unreachable")]
    apply(machines,
          workload("Deployment", "wide", 8, on_agents_only({"tolerations": soon, "containers": [container()]})),
          workload("StatefulSet", "ordered", 3, on_agents_only({"containers": [container()]}), serviceName="ordered"))
    eventually("the start", lambda: len([p for p in pods(machines) if is_ready(p)]) == 11)
    load = Load(machines, chance)
    load.start()
    evicted = 0
    for cut in range(CUTS):
        machine, seconds = chance.choice(AGENTS), chance.uniform(1, LONGEST)
        time.sleep(chance.uniform(0.5, 3))
        machines.task("link", machine, "cut")
        time.sleep(seconds)
        evicted += not machines.ready(machine)
        machines.task("link", machine, "restore")
    load.stop.set()
    load.join(120)
    assert not load.failed, load.failed

    for machine in AGENTS:
        eventually(f"{machine} again", lambda: machines.ready(machine))
    machines.kubectl("scale", "deployment", "wide", "--replicas=6")

    def settled():
        found = pods(machines)
        wide = [p for p in found if p["metadata"]["labels"].get("app") == "wide"]
        ordered = sorted(p["metadata"]["name"] for p in found if p["metadata"]["labels"].get("app") == "ordered" and is_ready(p))
        jobs = machines.get("jobs")["items"]
        return (len(wide) == 6 and all(map(is_ready, wide)) and ordered == ["ordered-0", "ordered-1", "ordered-2"]
                and all(j["status"].get("succeeded") == 1 for j in jobs) and len(jobs) == len(load.jobs))

    eventually("all as wanted", settled, timeout=300)
    running = [p for p in pods(machines) if p["status"]["phase"] == "Running"]

    def as_the_api_says(machine):
        """Each pod of the node has one shim, one cgroup, one route, and there are no others."""
        here = [p for p in running if p["spec"]["nodeName"] == machine]
        now, was = of_rk(machines, machine), before[machine]
        added = [route for route in now["routes"] if route not in was["routes"]]
        kept = {"shims": now["shims"] - was["shims"], "cgroups": len(now["cgroups"]) - len(was["cgroups"]), "routes": sorted(added)}
        wanted = {"shims": len(here), "cgroups": len(here), "routes": sorted(p["status"]["podIP"] for p in here)}
        assert kept == wanted, (machine, kept, wanted)
        return True

    for machine in AGENTS:
        eventually(f"{machine} has what the API says", lambda: as_the_api_says(machine), timeout=60)
    print(f"\n{CUTS} cuts (seed {SEED}) of up to {LONGEST} s, {evicted} long enough for NotReady; {len(load.jobs)} jobs, each done once")

    machines.kubectl("delete", "deployment,statefulset,job", "--all")
    eventually("no pod", lambda: not pods(machines))

    def nothing_left(machine):
        now = of_rk(machines, machine)
        assert now == before[machine], (machine, now, before[machine])
        return True

    for machine in AGENTS:
        eventually(f"{machine} as before", lambda: nothing_left(machine), timeout=60)
