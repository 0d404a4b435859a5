#!/usr/bin/env python3
"""Measures an API server beside upstream's in the same run: rates, lists, watches, memory, restart.

usage: sudo tests/bench/api.py [--quick] [--only rk|upstream] [--memory] [--pods N] [--name LAB]

Both run alone, one after the other, each in the hub or on the machine of a lab: `rk server` (everything in it, the node too), and
kube-apiserver with etcd, both durable. The load is src/rk/examples/api_load.rs. RK_BINARY, XTASK and RK_LOAD name the programs; upstream's come
from tests/conformance/build.sh --upstream. --memory leaves out what only measures rates, and a restart. What the pods take is set beside the
bytes of their JSON list: once they are there, after many lists of them, and a minute later.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))
import subject  # noqa: E402

CACHE = pathlib.Path(os.environ.get("RK_CACHE", pathlib.Path.home() / ".cache/rk"))
WORDS = ["--seconds", "5"]


def pss(pids):
    total = 0
    for pid in pids:
        total += int(re.search(r"^Pss:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
    return total / 1000


def until(what, condition, limit=300):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"api bench: waited {limit} s for {what}")
        time.sleep(0.005)


class Rk(subject.Lab):
    label = "rk"

    def up(self, binary):
        self.task("up", "--name", self.name, "--servers", 1, "--agents", 0, "--binary", binary)
        self.kubeconfig = f"/run/rk-lab/{self.name}/kubeconfig.yaml"

    def pids(self):
        """The server, which is among the processes of its machine's first one."""
        machine = os.readlink(f"/proc/{self.state()['machines'][0]['init']['pid']}/ns/pid")
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cmdline").read_bytes().startswith(b"rk\0server\0") and os.readlink(process / "ns/pid") == machine:
                    found.append(int(process.name))
            except OSError:
                pass  # it has just ended
        return found

    def stop(self):
        self.task("kill", "--name", self.name, "server-1")

    def start_again(self):
        self.task("start", "--name", self.name, "server-1")


class Upstream(subject.Lab):
    label = "kube-apiserver"

    def flags(self):
        """More flags of kube-apiserver."""
        return []

    def up(self, bin):
        self.bin = bin
        self.task("up", "--name", self.name, "--servers", 0, "--agents", 0)
        self.pki = self.out / "pki"
        subprocess.run([ROOT / "tests/conformance/upstream-pki.sh", self.pki], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.kubeconfig = str(self.out / "kubeconfig.json")
        pathlib.Path(self.kubeconfig).write_text(
            subject.kubeconfig_text("https://127.0.0.1:6443", self.pki / "ca.crt", self.pki / "admin.crt", self.pki / "admin.key"))
        self.start_again()

    def start_again(self):
        pki = self.pki
        self.running = [
            self.start("hub", self.bin / "etcd", "--data-dir", self.out / "etcd", "--quota-backend-bytes=8589934592", log="etcd.log"),
            self.start(
                "hub", self.bin / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0",
                f"--advertise-address=10.99.{self.state()['network']}.1", "--allow-privileged=true", "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction", f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key", "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local", f"--service-account-key-file={pki}/sa.pub",
                f"--service-account-signing-key-file={pki}/sa.key", *self.flags(), log="kube-apiserver.log")]

    def pids(self):
        found = []
        for process in self.running:
            children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found += [process.pid, *map(int, children)]
        return found

    def stop(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        for process in self.running:
            process.wait()


def ready(lab):
    command = lab.command("hub", "kubectl", "--kubeconfig", lab.kubeconfig, "get", "--raw", "/readyz")
    return lambda: subprocess.run(command, capture_output=True).returncode == 0


def phase(lab, load, *words):
    """Runs one phase of a load in the lab, prints its figures as they come, and yields them."""
    run = subprocess.Popen(lab.command("hub", load, lab.kubeconfig, *words), stdout=subprocess.PIPE, text=True)
    for line in run.stdout:
        figure = json.loads(line)
        if "seconds" in figure:
            text = f"{figure['seconds']:10.3f} s"
        else:
            text = f"{figure['per_second']:10.1f}/s  p50 {figure['p50_ms']:8.2f}  p99 {figure['p99_ms']:8.2f} ms"
        print(f"{lab.label:<15} {figure['what']:<70} {text}", flush=True)
        # The size of a list differs by a few bytes between the two.
        yield re.sub(r" \([\d.]+ MB\)", "", figure["what"]), figure
    if run.wait():
        raise SystemExit(f"bench: {lab.label}: {' '.join(map(str, words))} failed")


def memory(lab, figures, what):
    figures[what] = pss(lab.pids())
    print(f"{lab.label:<15} {what:<70} {figures[what]:10.1f} MB", flush=True)


def measure(lab, load, objects, watchers, only_memory):
    figures = {}
    empty, listed = 0, 0

    def run(*words):
        nonlocal listed
        for what, figure in phase(lab, load, *words):
            figures[what] = figure
            if size := re.match(r"list all Pods, JSON, .*\(([\d.]+) MB\)", figure["what"]):
                listed = float(size[1])

    memory(lab, figures, "memory, empty")
    empty = figures["memory, empty"]
    if not only_memory:
        run("writes", *WORDS)
        run("watches", "--count", str(watchers))
    run("fill", "--count", str(objects))
    filled = f"memory with {objects} Pods"
    memory(lab, figures, filled)
    run("lists", *WORDS)
    memory(lab, figures, "memory after the lists")
    time.sleep(60)
    memory(lab, figures, "memory a minute later")
    for what in (filled, "memory after the lists", "memory a minute later"):
        over = figures[what] - empty
        aim = 1.5 * listed + 30
        print(f"{lab.label:<15} {what} over empty: {over:.1f} MB, for {listed:.1f} MB of JSON (aim {aim:.1f} MB)", flush=True)
    if only_memory:
        return figures
    lab.stop()
    began = time.monotonic()
    lab.start_again()
    until(f"{lab.label} to be ready again", ready(lab))
    figures["restart"] = time.monotonic() - began
    print(f"{lab.label:<15} restart with {objects} Pods, to /readyz as kubectl sees it {figures['restart']:17.2f} s", flush=True)
    return figures


def programs(load):
    """Those that the environment names."""
    found = {name: os.environ.get(name) for name in ("RK_BINARY", "XTASK", "RK_LOAD")}
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise SystemExit(f"bench: set {', '.join(missing)} (cargo build --release -p rk -p xtask --bins; cargo build --release -p rk --example {load})")
    return found["XTASK"], found["RK_BINARY"], found["RK_LOAD"]


@contextlib.contextmanager
def subject_of(kind, name, xtask, rk):
    """A server of this kind alone in its lab."""
    with tempfile.TemporaryDirectory(prefix="rk-bench-") as folder:
        lab = kind(xtask, name, pathlib.Path(folder))
        try:
            lab.up(rk if issubclass(kind, Rk) else CACHE / "conformance/bin")
            until(f"{lab.label} to be ready", ready(lab))
            yield lab
        finally:
            lab.down()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["rk", "upstream"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--pods", type=int)
    parser.add_argument("--name", default="bench-api")
    options = parser.parse_args()
    objects, watchers = (1000, 100) if options.quick else (10_000, 1000)
    objects = options.pods or objects
    if options.quick:
        WORDS[1] = "1"
    xtask, rk, load = programs("api_load")
    results = {}
    for kind in (Rk, Upstream):
        if options.only and (options.only == "rk") != (kind is Rk):
            continue
        with subject_of(kind, options.name, xtask, rk) as lab:
            results[kind.label] = measure(lab, load, objects, watchers, options.memory)
    if len(results) == 2:
        print("\nas many times upstream's rate, or of its memory and time:")
        ours, theirs = results["rk"], results["kube-apiserver"]
        for what, figure in ours.items():
            other = theirs.get(what)
            if isinstance(figure, dict) and other:
                ratio = figure["per_second"] / other["per_second"] if "watchers" not in what else other["p99_ms"] / figure["p99_ms"]
            elif other:
                ratio = figure / other
            else:
                continue
            print(f"  {what:<62} {ratio:8.2f}")


if __name__ == "__main__":
    main()
