"""The cluster that is measured: the one that runs, or one of our own that is removed afterwards."""
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/system"))

from rawapi import Access, Refused  # noqa: E402

LOCK = pathlib.Path("/run/rk/server.lock")
INSTALLED = pathlib.Path("/usr/local/bin/rk")
IMAGE = "rk.local/demo:1"
SYSTEM = (("k8s-app", "kube-dns"), ("app.kubernetes.io/name", "ingress"))


def server_pid():
    """The running server's process, or None."""
    try:
        pid = int(LOCK.read_text())
        return pid if os.readlink(f"/proc/{pid}/exe").split("/")[-1].startswith("rk") else None
    except (OSError, ValueError):
        return None


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


class Cluster:
    """`own` is False where a cluster ran already; it is then left as it was."""

    def __init__(self):
        self.own = server_pid() is None
        if not self.own:
            self.pid = server_pid()
            self.binary = pathlib.Path(f"/proc/{self.pid}/exe")
            arguments = pathlib.Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")
            named = [a.removeprefix("--data-dir=") for a in arguments if a.startswith("--data-dir=")]
            named += [b for a, b in zip(arguments, arguments[1:]) if a == "--data-dir"]
            self.data = pathlib.Path(named[-1] if named else "/var/lib/rk")
            return
        if pathlib.Path("/var/lib/rk").exists():
            sys.exit("a cluster that does not run is on this machine (/var/lib/rk): start it, or remove it with rk uninstall")
        given = pathlib.Path(os.environ.get("RK_BINARY", INSTALLED))
        if not given.exists():
            sys.exit(f"no {given}: name the binary to measure in RK_BINARY")
        # Not below /tmp, which may be memory: what the disk costs belongs to the figures.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="rk-bench-", dir="/var/lib"))
        self.binary, self.data, self.pid = self.work / "rk", self.work / "data", None
        shutil.copy(given, self.binary)
        # `rk uninstall` takes the installed binary too; a cluster of ours must not cost somebody theirs.
        self.saved = shutil.copy2(INSTALLED, self.work / "installed") if INSTALLED.exists() else None

    def start(self):
        """Starts on an empty folder; seconds until /readyz and until every pod is Ready."""
        began = time.perf_counter()
        with open(self.work / "log", "ab") as log:
            self.process = subprocess.Popen([self.binary, "server", f"--data-dir={self.data}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid
        answered = self.wait_readyz(began) - began
        pods = self.wait_pods(began) - began
        return answered, pods

    def alive(self, began):
        if self.process.poll() is not None or time.perf_counter() - began > 120:
            raise RuntimeError(f"the cluster does not start: {(self.work / 'log').read_text()[-2000:]}")

    def wait_readyz(self, began):
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        while True:
            self.alive(began)
            try:
                with tls.wrap_socket(socket.create_connection(("127.0.0.1", 6443), timeout=30)) as connection:
                    connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if connection.recv(64).startswith(b"HTTP/1.1 200"):
                        return time.perf_counter()
            except OSError:
                pass
            time.sleep(0.002)

    def wait_pods(self, began):
        while True:
            self.alive(began)
            try:
                connection = Access().connect(timeout=120)
                break
            except OSError:  # the kubeconfig is written beside the first answers
                time.sleep(0.002)
        watch, pods = connection.watch("/api/v1/pods"), {}
        while (line := watch.next()) is not None:
            seen = time.perf_counter()
            kind, pod = line
            if kind == "ERROR":
                raise RuntimeError(f"watch of pods: {pod}")
            pods[pod["metadata"]["name"]] = kind != "DELETED" and pod
            there = [p for p in pods.values() if p]
            labels = [p["metadata"].get("labels", {}) for p in there]
            if all(any(have.get(k) == v for have in labels) for k, v in SYSTEM) and all(map(ready, there)):
                watch.close()
                return seen
        raise RuntimeError("the watch of pods ended before they were Ready")

    def remove(self):
        done = subprocess.run([self.binary, "uninstall", f"--data-dir={self.data}"], capture_output=True, text=True)
        if self.pid:
            self.process.wait(60)
            self.pid = None
        if self.saved and not INSTALLED.exists():
            shutil.copy2(self.saved, INSTALLED)
        if done.returncode != 0:
            raise RuntimeError(f"rk uninstall: {done.stdout}{done.stderr}")

    def close(self):
        """Takes everything of our own away; once, at the end."""
        if self.own:
            try:
                self.remove()
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    def image(self):
        """Has the image of the measured pods on the node."""
        def rk_image(*arguments):
            return subprocess.run([self.binary, "image", f"--data-dir={self.data}", *arguments], check=True, capture_output=True, text=True).stdout

        if not any(line.startswith(f"{IMAGE} ") for line in rk_image("list").splitlines()):
            with tempfile.TemporaryDirectory() as folder:
                archive = f"{folder}/demo.tar"
                subprocess.run([ROOT / "installer/demo-image.sh", archive, IMAGE], check=True, stdout=subprocess.DEVNULL)
                rk_image("import", archive)


class Pods:
    """Pods of ours in a namespace of their own, and what a watch says of them."""

    NAMESPACE = "rk-bench"
    PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"

    def __init__(self):
        self.access = Access()
        self.api = self.access.connect()
        self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": self.NAMESPACE}})
        end = time.monotonic() + 30
        while True:
            try:
                self.api.get(f"/api/v1/namespaces/{self.NAMESPACE}/serviceaccounts/default")
                break
            except Refused:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.watch = None
        self.rewatch()

    def rewatch(self):
        if self.watch:
            self.watch.close()
        _, version = self.api.list(self.PATH)
        self.watch = self.access.connect(timeout=60).watch(self.PATH, version)

    @staticmethod
    def body(name):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}]}}

    def event(self):
        """When the next event came, its kind and its pod."""
        line = self.watch.next_line()
        came = time.perf_counter()
        if not line:
            raise RuntimeError("the watch ended")
        event = json.loads(line)
        if event["type"] == "ERROR":
            raise RuntimeError(f"the watch says {event['object']}")
        return came, event["type"], event["object"]

    def until(self, count, reached):
        """Reads events until `count` pods have reached a state; when each of them did."""
        times = {}
        while len(times) < count:
            came, kind, pod = self.event()
            if reached(kind, pod):
                times.setdefault(pod["metadata"]["name"], came)
        return times

    def delete_all(self, count):
        """Removes all pods; seconds until the watch has seen the last one go."""
        began = time.perf_counter()
        self.api.request("DELETE", self.PATH)
        return max(self.until(count, gone).values()) - began

    def close(self):
        self.watch.close()
        self.api.request("DELETE", f"/api/v1/namespaces/{self.NAMESPACE}")
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                self.api.get(f"/api/v1/namespaces/{self.NAMESPACE}")
            except Refused as refused:
                if refused.status == 404:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"namespace {self.NAMESPACE} does not go")


def running(_, pod):
    return pod["status"].get("phase") == "Running"


def gone(kind, _):
    return kind == "DELETED"
