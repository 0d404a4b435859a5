"""A server whose state is in an etcd: it waits for it, survives its death and its own, and keeps nothing beside it."""
import json
import os
import pathlib
import shutil
import subprocess

import lab
import pytest
from lab import eventually, run
from machines import Machines

IMAGE = "rk.local/demo:1"


def program():
    built = pathlib.Path(os.environ.get("RK_CACHE", pathlib.Path.home() / ".cache/rk")) / "conformance/bin/etcd"
    found = built if built.exists() else shutil.which("etcd")
    if not found:
        pytest.skip("no etcd (package etcd-server)")
    return found


class Etcd:
    """On the server's machine, so that it needs no address of its own."""

    def __init__(self, machines, folder):
        self.machines, self.folder, self.program = machines, folder, program()

    def start(self):
        command = [self.machines.xtask, "lab", "exec", "--name", self.machines.name, "server-1", "--", "sh", "-c",
                   'echo $$ > "$0/pid"; exec "$1" --data-dir "$0/data"', self.folder, self.program]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        self.machines.on("server-1", "sh", "-c", 'kill -9 "$(cat "$0/pid")"', str(self.folder))
        self.process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("etcd")
    archive = folder / "demo.tar"
    run(lab.ROOT / "installer/demo-image.sh", archive, IMAGE)
    made = Machines("etcd")
    etcd = Etcd(made, folder)
    up = subprocess.Popen([made.xtask, "lab", "up", "--name", "etcd", "--servers", "1", "--agents", "0", "--binary", os.environ["RK_BINARY"],
                           "--server-argument", "--datastore-endpoint=http://127.0.0.1:2379"], stdin=subprocess.DEVNULL)
    try:
        # Only then, so that it has to wait.
        eventually("rk waits for etcd", lambda: "waiting for etcd" in made.log("server-1"))
        etcd.start()
        assert up.wait(300) == 0
        made.on("server-1", "rk", "image", "import", archive)
        yield made, etcd
    finally:
        up.kill()
        made.task("down")


def pod(name):
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "1d"], "securityContext": {"runAsUser": 0}}]}})


def runs(machines, name):
    eventually(f"pod {name}", lambda: machines.get("pod", name)["status"]["phase"] == "Running")
    return machines.get("pod", name)["status"]["containerStatuses"][0]["containerID"]


def test_a_pod_runs_and_nothing_is_kept_beside_etcd(cluster):
    machines, _ = cluster
    machines.kubectl("apply", "-f", "-", input=pod("one"))
    runs(machines, "one")
    assert machines.on("server-1", "test", "-e", "/var/lib/rk/server/state.db", check=False).returncode == 1


def test_a_dead_etcd_is_said_and_its_return_noticed(cluster):
    machines, etcd = cluster
    before = runs(machines, "one")
    etcd.kill()
    eventually("readyz names etcd", lambda: "[-]etcd failed" in machines.on("hub", "kubectl", "get", "--raw", "/readyz?verbose", check=False).stderr)
    etcd.start()
    eventually("readyz is fine again", lambda: machines.kubectl("get", "--raw", "/readyz", check=False) == "ok")
    machines.kubectl("apply", "-f", "-", input=pod("two"))
    runs(machines, "two")
    assert runs(machines, "one") == before


def test_a_restart_keeps_everything(cluster):
    machines, etcd = cluster
    machines.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    before = runs(machines, "one"), machines.get("configmap", "kept")
    machines.task("kill", "server-1")
    etcd.kill()
    etcd.start()
    machines.task("start", "server-1")
    eventually("the server answers", lambda: machines.kubectl("get", "--raw", "/readyz", check=False) == "ok")
    assert (runs(machines, "one"), machines.get("configmap", "kept")) == before
    eventually("the node is ready", lambda: machines.ready("server-1"))
    machines.kubectl("apply", "-f", "-", input=pod("three"))
    runs(machines, "three")


def test_a_second_server_is_refused_and_a_server_that_lost_its_claim_steps_down(cluster):
    """On the same machine, but as a stranger would: with another name, and folders of its own."""
    machines, etcd = cluster
    etcdctl = etcd.program.parent / "etcdctl" if isinstance(etcd.program, pathlib.Path) else shutil.which("etcdctl")
    second = machines.on(
        "server-1", "unshare", "--mount", "sh", "-c",
        "mount -t tmpfs none /run/rk && exec timeout 60 rk server --node-name other --data-dir /tmp/other --https-listen-port 7443 "
        "--datastore-endpoint http://127.0.0.1:2379", check=False)
    assert second.returncode == 1, second
    said = second.stderr.splitlines()[-1]
    assert "in use by another rk server, server-1 at " in said and "rk agent" in said, said
    before = runs(machines, "one")
    if not etcdctl or not os.path.exists(etcdctl):
        pytest.skip("no etcdctl to take the claim away with")
    machines.on("server-1", str(etcdctl), "del", "/rk/~server")
    alive = ("sh", "-c", 'read -r pid < /run/lab/rk.pid && kill -0 "$pid"')
    eventually("the server steps down", lambda: machines.on("server-1", *alive, check=False).returncode != 0)
    assert "this server's claim to the state in etcd has run out" in machines.log("server-1")
    machines.task("start", "server-1")
    eventually("the server answers", lambda: machines.kubectl("get", "--raw", "/readyz", check=False) == "ok")
    assert runs(machines, "one") == before
