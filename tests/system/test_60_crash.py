"""kill -9 of rk at any moment: what was acknowledged is there, no version is given twice, pods and their logs do not notice.

Five crashes; two hundred with RK_TEST_ALL=1; RK_CRASHES names another number, RK_CRASH_SEED repeats a run's choices.
"""
import hashlib
import http.client
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import threading
import time

import pytest

import lab
from lab import DEMO_IMAGE, eventually, kubectl
from rawapi import MERGE_PATCH, Access, Refused

NS = "crash-test"
MAPS = f"/api/v1/namespaces/{NS}/configmaps"
CRASHES = int(os.environ.get("RK_CRASHES") or (200 if os.environ.get("RK_TEST_ALL") == "1" else 5))
SEED = int(os.environ.get("RK_CRASH_SEED") or time.time())
WRITERS = 4
KEYS_EACH = 60
WRITES_A_LIFE = 25
LOGGERS = ["log-0", "log-1", "log-2", "burst"]
# One line each 100 ms from three programs; one writes in bursts of lines longer than a log record holds.
COUNT = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
BURSTS = "p=x; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do p=$p$p; done; i=0; while true; do i=$((i+1)); echo line $i; if [ $((i%40)) = 0 ]; then echo $p; sleep 1; fi; done"
BURST_LINE = "x" * (1 << 15)
LOST = (OSError, http.client.HTTPException)


def digest(n):
    """The content that belongs to the n-th write, so that any content found can be checked without a copy."""
    return hashlib.sha256(str(n).encode()).hexdigest() * 8


class Ledger:
    """What was acknowledged and what was seen, of all threads; every contradiction is a fault."""

    def __init__(self):
        self.lock = threading.Lock()
        self.faults = []
        self.by_version = {}  # version -> (key, number of the write), of acknowledged writes and of events
        self.acknowledged = {}  # version -> key
        self.highest = 0
        self.numbers = 0

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def number(self):
        with self.lock:
            self.numbers += 1
            return self.numbers

    def acknowledge(self, key, n, version, floor):
        """`floor` is the highest version that was acknowledged before the write was sent."""
        with self.lock:
            self.record(version, (key, n))
            if version <= floor:
                self.faults.append(f"{key}: write {n} got version {version}, but {floor} was given out before it was sent")
            self.acknowledged[version] = key
            self.highest = max(self.highest, version)

    def record(self, version, what):
        if self.by_version.setdefault(version, what) != what:
            self.faults.append(f"version {version} was given to {what} and to {self.by_version[version]}")


class Key:
    """One ConfigMap: the state that was acknowledged last, and the outcomes that are open since then."""

    def __init__(self, name):
        self.name, self.n, self.version = name, None, 0  # n is None: absent
        self.open = []  # numbers of writes without an answer, None for a deletion

    def settle(self, n, version=0):
        self.n, self.version, self.open = n, version or self.version, []

    def possible(self):
        return [self.n, *self.open]


class Writer(threading.Thread):
    """A client that creates, changes and deletes its own ConfigMaps one after another, whatever happens to the server."""

    def __init__(self, name, ledger, stop, seed):
        super().__init__(name=name, daemon=True)
        self.ledger, self.stop, self.random = ledger, stop, random.Random(seed)
        self.keys, self.gone, self.made, self.interrupted = [], [], 0, 0

    def run(self):
        try:
            connection = Access().connect()
            while not self.stop.is_set():
                self.step(connection)
                time.sleep(self.random.uniform(0, 0.01))
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.ledger.fault(f"writer {self.name} stopped: {error!r}")

    def step(self, connection):
        choice = self.random.random()
        if len(self.keys) < KEYS_EACH and choice < 0.4 or not self.keys:
            key = Key(f"{self.name}-{self.made}")
            self.made += 1
            self.keys.append(key)
            self.write(connection, key, "create")
        else:
            key = self.random.choice(self.keys)
            self.write(connection, key, "patch" if choice < 0.75 else "replace" if choice < 0.9 else "delete")

    def write(self, connection, key, verb):
        """One request; an outcome that the server did not tell is kept as open."""
        n = None if verb == "delete" else self.ledger.number()
        body = {"metadata": {"name": key.name}, "data": {"n": str(n), "sum": digest(n)}}
        with self.ledger.lock:
            floor = self.ledger.highest
        try:
            if verb == "create":
                answer = connection.request("POST", MAPS, body)
            elif verb == "patch":
                answer = connection.request("PATCH", f"{MAPS}/{key.name}", body, MERGE_PATCH)
            elif verb == "replace":
                answer = connection.request("PUT", f"{MAPS}/{key.name}", body)
            else:
                connection.request("DELETE", f"{MAPS}/{key.name}")
                self.forget(key)
                return
        except ConnectionRefusedError:
            time.sleep(0.01)  # nobody listens: nothing was sent
            if verb == "create" and not key.open:
                self.keys.remove(key)
            return
        except LOST:
            self.interrupted += 1
            key.open.append(n)
            time.sleep(0.005)
            return
        except Refused as refused:
            self.refused(key, verb, n, refused)
            return
        key.settle(n, version := int(answer["metadata"]["resourceVersion"]))
        self.ledger.acknowledge(key.name, n, version, floor)

    def refused(self, key, verb, n, refused):
        if refused.status == 404 and None in key.possible():  # a create or a deletion whose answer was lost
            self.forget(key)
        elif refused.status in (500, 503, 504):
            self.interrupted += 1
            key.open.append(n)
            time.sleep(0.01)
        else:
            self.ledger.fault(f"{verb} {key.name} (possible {key.possible()}): {refused}")

    def forget(self, key):
        key.settle(None)
        self.keys.remove(key)
        self.gone.append(key.name)


class Watcher(threading.Thread):
    """Follows the ConfigMaps over all crashes, each time from the version that it saw last."""

    def __init__(self, ledger, stop, version):
        super().__init__(name="watcher", daemon=True)
        self.ledger, self.stop, self.version = ledger, stop, version
        self.seen, self.gaps, self.resumed = {}, [], 0

    def run(self):
        try:
            access = Access()
            while not self.stop.is_set():
                connection = access.connect(timeout=5)
                try:
                    self.follow(connection.watch(MAPS, self.version, bookmarks=True))
                except LOST:
                    time.sleep(0.01)
                except Refused as refused:
                    if refused.status == 410:
                        self.relist(connection)
                    elif refused.status < 500:
                        self.ledger.fault(f"watch from {self.version}: {refused}")
                        return
                    else:
                        time.sleep(0.01)
                finally:
                    connection.close()
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.ledger.fault(f"the watcher stopped: {error!r}")

    def follow(self, watch):
        self.resumed += 1
        while (event := watch.next()) is not None:
            kind, thing = event
            if kind == "ERROR":
                raise Refused(thing["code"], json.dumps(thing))
            version = int(thing["metadata"]["resourceVersion"])
            late = version < int(self.version) if kind == "BOOKMARK" else version <= int(self.version)
            if late:
                self.ledger.fault(f"watch: {kind} {version} came after {self.version}")
            self.version = str(version)
            name = thing.get("metadata", {}).get("name")
            if kind == "BOOKMARK" or name == "kube-root-ca.crt":
                continue
            self.seen[version] = (name, "deleted" if kind == "DELETED" else int(thing["data"]["n"]))
            with self.ledger.lock:
                self.ledger.record(version, self.seen[version])

    def relist(self, connection):
        while not self.stop.is_set():
            try:
                _, version = connection.list(MAPS)
                self.gaps.append((int(self.version), int(version)))
                self.version = version
                return
            except (*LOST, Refused):
                time.sleep(0.05)


def kill(process):
    fd = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    assert select.select([fd], [], [], 30)[0], "rk does not die"
    os.close(fd)


def api_ready(access):
    connection = access.connect(timeout=5)
    try:
        return connection.get("/readyz") == "ok"
    except (*LOST, Refused):
        return False
    finally:
        connection.close()


def wait_ready(server, access):
    began = time.monotonic()
    while not api_ready(access):
        assert server.poll() is None, f"rk server ended with {server.returncode}: {tail()}"
        assert time.monotonic() - began < 60, f"not ready after a crash: {tail()}"
        time.sleep(0.01)
    return time.monotonic() - began


def tail():
    return subprocess.run(["tail", "-n", "15", "/var/log/rk.log"], capture_output=True, text=True).stdout


def containers():
    """First processes of all containers of the cluster, and their shims: what a restart would change."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            cgroup = (folder / "cgroup").read_text()
            spaces = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("NSpid:")).split()
            started = (folder / "stat").read_text().rsplit(")", 1)[1].split()[19]
        except (OSError, StopIteration):
            continue
        if command[0] == b"rk-shim":
            found[f"shim of {os.path.basename(command[1].decode())}"] = (folder.name, started)
        elif "/rk/kubepods/" in cgroup and spaces[-1] == "1":
            name = cgroup.split("/rk/kubepods/")[1].splitlines()[0].split("/")[-1]
            found[name] = (folder.name, started)
    return found


def statuses():
    """What the API says of every running container."""
    found = {}
    for pod in lab.get("pods", "-A")["items"]:
        for c in pod["status"].get("containerStatuses", []):
            if "running" in c["state"]:
                found[pod["metadata"]["uid"], c["name"]] = (pod["metadata"]["name"], c["containerID"], c["restartCount"], c["state"]["running"]["startedAt"])
    return found


def pod(name, script, restart="Always"):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "restartPolicy": restart,
        "containers": [{"name": "c", "image": DEMO_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script]}]}}


@pytest.fixture(scope="module")
def story():
    """All the crashes, once; the tests below read what came of them."""
    if os.path.exists("/etc/systemd/system/rk.service"):  # systemd would start it again beside us
        lab.run("systemctl", "stop", "rk.service")
        lab.start_server()
        lab.wait_ready()
    Access().connect().request("POST", "/api/v1/namespaces", {"metadata": {"name": NS}})
    try:
        yield crash_and_recover()
    finally:
        if lab.server_pid() is None:
            lab.start_server()
            lab.wait_ready()
        kubectl("delete", "namespace", NS, "--timeout=300s", timeout=330)


def crash_and_recover():
    access = Access()
    api = access.connect()
    pods = f"/api/v1/namespaces/{NS}/pods"
    eventually("the service account", lambda: api.get(f"/api/v1/namespaces/{NS}/serviceaccounts/default"))
    for name in LOGGERS:
        api.request("POST", pods, pod(name, BURSTS if name == "burst" else COUNT))
    # Only what has been running and reported before the first crash can be compared.
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    _, first = api.list(MAPS)
    before = {"containers": containers(), "statuses": statuses()}
    ledger, stop, chance = Ledger(), threading.Event(), random.Random(SEED)
    watcher = Watcher(ledger, stop, first)
    writers = [Writer(f"w{i}", ledger, stop, SEED + i) for i in range(WRITERS)]
    for thread in [watcher, *writers]:
        thread.start()
    process, recoveries, jobs = lab.server_pid(), [], []
    began = time.monotonic()
    try:
        for crash in range(CRASHES):
            enough = len(ledger.acknowledged) + WRITES_A_LIFE
            time.sleep(chance.uniform(0, 1.2))
            # However slow the machine is: between two crashes there is something to lose.
            eventually("writes", lambda: len(ledger.acknowledged) >= enough)
            if crash % max(1, CRASHES // 20) == 0:  # a pod that is about to start when the server dies
                jobs.append(f"job-{crash}")
                api.request("POST", pods, pod(jobs[-1], "echo once; sleep 0.2", "Never"))
                time.sleep(chance.uniform(0, 0.1))
            api.close()
            kill(process)
            server = lab.start_server()
            if chance.random() < 0.25:  # and again before it is ready
                time.sleep(chance.uniform(0, 0.5))
                kill(server.pid)
                server.wait()
                server = lab.start_server()
            recoveries.append(wait_ready(server, access))
            process = server.pid
        time.sleep(1)
    finally:
        stop.set()
        for thread in [*writers, watcher]:  # the watcher ends some seconds after the last event
            thread.join(60)
    recoveries.sort()
    print(f"\n{CRASHES} crashes (seed {SEED}) in {time.monotonic() - began:.0f} s: {len(ledger.acknowledged)} acknowledged writes, "
          f"{sum(w.interrupted for w in writers)} without an answer; /readyz again after p50 {recoveries[len(recoveries) // 2] * 1000:.0f} ms, "
          f"max {recoveries[-1] * 1000:.0f} ms; {watcher.resumed} watches, {len(watcher.gaps)} answered 410")
    return {"ledger": ledger, "watcher": watcher, "writers": writers, "first": first, "before": before, "jobs": jobs, "access": access}


def test_nothing_acknowledged_is_lost(story):
    items, _ = story["access"].connect().list(MAPS)
    found = {m["metadata"]["name"]: m for m in items}
    lost = []
    for writer in story["writers"]:
        assert not writer.is_alive(), f"{writer.name} hangs"
        for key in writer.keys:
            item = found.get(key.name)
            n = int(item["data"]["n"]) if item else None
            if n not in key.possible():
                lost.append(f"{key.name}: found write {n}, acknowledged {key.n} at {key.version}, open {key.open}")
            elif item and n == key.n and int(item["metadata"]["resourceVersion"]) != key.version:
                lost.append(f"{key.name}: write {n} was acknowledged as version {key.version}, found as {item['metadata']['resourceVersion']}")
            elif item and item["data"]["sum"] != digest(n):
                lost.append(f"{key.name}: the content of write {n} is damaged")
        lost += [f"{name}: deleted, but there" for name in writer.gone if name in found]
    assert not lost, f"{len(lost)} of {len(story['ledger'].acknowledged)}: {lost[:10]}"
    assert len(story["ledger"].acknowledged) >= WRITES_A_LIFE * CRASHES, "too few writes for a verdict"


def test_no_version_is_given_twice(story):
    """And none that is lower than one given before; also no write was refused for a reason of the crash's making."""
    assert not story["ledger"].faults, f"{len(story['ledger'].faults)}: {story['ledger'].faults[:10]}"


def test_the_watch_missed_nothing(story):
    watcher, ledger = story["watcher"], story["ledger"]
    assert watcher.resumed > CRASHES // 2, "the watch was hardly ever resumed"
    missed = [v for v in ledger.acknowledged if v not in watcher.seen and v <= int(watcher.version) and not any(a < v <= b for a, b in watcher.gaps)]
    assert not missed, f"{len(missed)} of {len(ledger.acknowledged)}: {sorted(missed)[:10]} gaps {watcher.gaps[:5]}"
    assert int(watcher.version) >= ledger.highest, "the watch ended before the last write came"


def test_a_watch_from_the_oldest_version_gets_all_or_is_refused(story):
    connection = story["access"].connect(timeout=20)
    ledger, seen = story["ledger"], set()
    try:
        watch = connection.watch(MAPS, story["first"])
        while max(seen, default=0) < ledger.highest:
            kind, thing = watch.next()
            if kind == "ERROR":
                assert thing["code"] == 410, thing
                return
            version = int(thing["metadata"]["resourceVersion"])
            assert version > max(seen, default=0), "events in order"
            seen.add(version)
    except Refused as refused:
        assert refused.status == 410, refused
        return
    finally:
        connection.close()
    assert not set(ledger.acknowledged) - seen


def test_no_container_noticed(story):
    eventually("the node", lambda: "True" in kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.conditions[?(@.type=='Ready')].status}"))
    now = containers()
    changed = {name: (was, now.get(name)) for name, was in story["before"]["containers"].items() if now.get(name) != was}
    assert not changed, changed
    told = statuses()
    changed = {key: (was, told.get(key)) for key, was in story["before"]["statuses"].items() if told.get(key) != was}
    assert not changed, changed


@pytest.mark.parametrize("name", LOGGERS)
def test_no_log_line_is_lost_or_repeated(story, name):
    lines = kubectl("-n", NS, "logs", name).splitlines()
    long_lines = [line for line in lines if line.startswith("x")]
    numbers = [int(line.removeprefix("line ")) for line in lines if not line.startswith("x")]
    assert numbers, "no lines"
    wrong = [(a, b) for a, b in zip(numbers, numbers[1:]) if b != a + 1]
    assert not wrong, f"breaks after {wrong[:10]} in {len(numbers)} lines"
    if numbers[0] != 1:  # the file was rotated; the older ones hold the rest
        assert name == "burst", f"starts with {numbers[0]}"
    assert all(line == BURST_LINE for line in long_lines[:-1]), "long lines are damaged"


def test_pods_that_were_starting_ran(story):
    api = story["access"].connect()
    for name in story["jobs"]:
        path = f"/api/v1/namespaces/{NS}/pods/{name}"
        eventually(f"{name}", lambda: api.get(path)["status"]["phase"] in ("Succeeded", "Failed"))
        status = api.get(path)["status"]
        assert status["phase"] == "Succeeded", status
        assert kubectl("-n", NS, "logs", name) == "once\n"
