#!/usr/bin/env python3
"""Measures a cluster: how fast it and its pods start, and what it uses when nothing happens.

usage: sudo tests/bench/run.py [--quick]

Measures the cluster that runs here, or one that it starts from RK_BINARY (else /usr/local/bin/rk) on an empty folder and removes
afterwards; only the latter way shows the start of a cluster. --quick repeats less. Each figure stands beside its aim, and beside
what the same machine needs in the same run for the bare work. Times depend on what else runs: the load is printed too.
"""
import os
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import processes  # noqa: E402
from cluster import ROOT, Cluster, Pods, running, server_pid  # noqa: E402

KB, MB = 1000, 1_000_000
failures = 0


def show(figure, value, unit, aim=None, least=False):
    """One line: the figure, its aim and whether it is met. `least`: the aim is a lower limit."""
    text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
    line = f"  {figure:<56} {text:>8} {unit}"
    if aim is not None:
        met = value >= aim if least else value <= aim
        line = f"{line:<86} aim {'>=' if least else '<='} {aim:g} {unit}: {'met' if met else 'MISSED'}"
    print(line, flush=True)


def measured(title):
    """A part of the run: its failure is told and does not keep the others from running."""
    def wrap(function):
        def call(*arguments):
            global failures
            print(f"\n{title}", flush=True)
            try:
                return function(*arguments)
            except Exception:  # noqa: BLE001 - told, and in the exit code
                failures += 1
                print(f"  FAILED to run:\n{traceback.format_exc()}", flush=True)
        return call
    return wrap


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@measured("Start of `rk server` on an empty folder")
def start(cluster, rounds):
    programs = []
    for _ in range(20):
        began = time.perf_counter()
        subprocess.run([cluster.binary, "version"], check=True, stdout=subprocess.DEVNULL)
        programs.append(time.perf_counter() - began)
    answered, pods = [], []
    for round in range(rounds):
        if round:
            cluster.remove()
        one, other = cluster.start()
        answered.append(one)
        pods.append(other)
    show(f"to /readyz, median of {rounds}", statistics.median(answered), "s", 0.3)
    show("    slowest", max(answered), "s")
    show(f"to all pods Ready, median of {rounds}", statistics.median(pods), "s", 2)
    show("    slowest", max(pods), "s")
    show("beside: fork, exec and end of `rk version`, median", statistics.median(programs) * 1000, "ms")


@measured("Idle")
def idle(cluster, settle, seconds):
    time.sleep(settle)
    before = processes.of_cluster(cluster.pid)
    cpu, cpu_by = processes.sum_of(before, "cpu")
    written, written_by = processes.sum_of(before, "written")
    time.sleep(seconds)
    after = processes.of_cluster(cluster.pid)
    cpu_later, cpu_by_later = processes.sum_of(after, "cpu")
    written_later, written_by_later = processes.sum_of(after, "written")
    pss, pss_by = processes.sum_of(after, "pss")
    pods = len({p.pod for p in after if p.pod})
    show(f"PSS of {len(after)} processes ({pods} pods)", pss / MB, "MB", 80)
    for role, name in (("server", "rk server"), ("shim", "shims"), ("program", "pods' programs")):
        show(f"    {name}", pss_by[role] / MB, "MB")
    show("    beside: RSS of all", processes.sum_of(after, "rss")[0] / MB, "MB")
    show(f"CPU over {seconds} s", (cpu_later - cpu) / seconds * 100, "% of a core", 0.5)
    for role, name in (("server", "rk server"), ("program", "pods' programs")):
        show(f"    {name}", (cpu_by_later[role] - cpu_by[role]) / seconds * 100, "% of a core")
    show(f"written to disk over {seconds} s", (written_later - written) / seconds / KB, "kB/s", 1)
    show("    rk server", (written_by_later["server"] - written_by["server"]) / seconds / KB, "kB/s")


def create(pods, names, clients):
    """Creates pods over several connections; when the first request was sent."""
    began, failed = time.perf_counter(), []

    def send(part):
        try:
            connection = pods.access.connect()
            for name in part:
                connection.send("POST", pods.PATH, pods.body(name))
                connection.answer()
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=send, args=(names[i::clients],), daemon=True) for i in range(clients)]
    for thread in threads:
        thread.start()
    return began, threads, failed


def room(pods, wanted):
    """How many pods the node still takes, up to what is wanted."""
    node = pods.api.get("/api/v1/nodes")["items"][0]
    there = [p for p in pods.api.list("/api/v1/pods")[0] if p["status"].get("phase") in ("Running", "Pending")]
    return min(wanted, int(node["status"]["allocatable"]["pods"]) - len(there))


@measured("Memory of one more pod")
def memory(cluster, pods, count, settle):
    time.sleep(settle)
    there = processes.of_cluster(cluster.pid)
    before, before_by = processes.sum_of(there, "pss")
    _, threads, failed = create(pods, [f"memory-{i}" for i in range(count)], 1)
    pods.until(count, running)
    for thread in threads:
        thread.join()
    assert not failed, failed
    time.sleep(settle)
    now = processes.of_cluster(cluster.pid)
    after, after_by = processes.sum_of(now, "pss")
    old = {p.pod for p in there}
    own, _ = processes.sum_of([p for p in now if p.role == "program" and p.pod not in old], "pss")
    show(f"PSS of all but the pod's program, mean of {count}", (after - before - own) / count / MB, "MB", 1)
    show("    its shim", (after_by["shim"] - before_by["shim"]) / count / MB, "MB")
    show("    more in rk server", (after_by["server"] - before_by["server"]) / count / MB, "MB")
    show("    beside: the pod's own program (busybox sleep)", own / count / MB, "MB")
    pods.delete_all(count)


def bare():
    """The runtime's own measurement, if its program has been built."""
    targets = [os.environ.get("CARGO_TARGET_DIR"), os.environ.get("RK_CACHE", os.path.expanduser("~/.cache/rk")) + "/target", ROOT / "target"]
    built = [os.environ.get("RK_RUNTIME_BENCH"), *(f"{t}/x86_64-unknown-linux-gnu/{p}/examples/runtime_bench" for p in ("release", "debug") for t in targets if t)]
    program = next((b for b in built if b and pathlib.Path(b).exists()), None)
    if not program:
        print("  beside: no figures of the runtime alone; build them with: cargo build -p runtime --example runtime_bench")
        return
    out = subprocess.run([program, "50"], capture_output=True, text=True, timeout=120)
    if out.returncode != 0:
        raise RuntimeError(f"{program}: {out.stdout}{out.stderr}")
    profile = "release" if "/release/" in program else "debug"
    for name, p50, largest in re.findall(r"^(.*?)\s+p50\s+([\d.]+) ms.*max\s+([\d.]+) ms", out.stdout, re.M):
        show(f"beside: runtime alone ({profile}): {name}, p50", float(p50), f"ms (max {float(largest):.1f})")


@measured("One pod, image present, create to Running as a watch sees it")
def one_pod(pods, count):
    times, scheduled, removed = [], [], []
    for i in range(count):
        began = time.perf_counter()
        pods.api.send("POST", pods.PATH, pods.body(f"one-{i}"))
        pods.api.answer()
        placed = None
        while True:
            came, _, pod = pods.event()
            if placed is None and pod["spec"].get("nodeName"):
                placed = came
            if running(None, pod):
                break
        times.append((came - began) * 1000)
        scheduled.append((placed - began) * 1000)
        removed.append(pods.delete_all(1) * 1000)
        time.sleep(0.1)
    show(f"p50 of {count}", percentile(times, 50), "ms", 50)
    show("p99", percentile(times, 99), "ms", 100)
    show("    fastest", min(times), "ms")
    show("    create to scheduled, p50", percentile(scheduled, 50), "ms")
    show("    delete to gone, p50", percentile(removed, 50), "ms")
    bare()


@measured("Pods at once on one node")
def burst(pods, wanted):
    count = room(pods, wanted)
    if count < wanted:
        print(f"  the node has room for {count} more pods only")
    began, threads, failed = create(pods, [f"burst-{i}" for i in range(count)], 4)
    times = pods.until(count, running)
    took = max(times.values()) - began
    for thread in threads:
        thread.join()
    assert not failed, failed
    show(f"{count} pods, first create to last Running", took, "s")
    show("pods per second", count / took, "/s", 100, least=True)
    show("    half of them Running after", percentile(times.values(), 50) - began, "s")
    show("    all of them deleted and gone after", pods.delete_all(count), "s")


def main():
    arguments = set(sys.argv[1:])
    if arguments - {"--quick"}:
        print(__doc__.strip(), file=sys.stderr)
        return 64
    if os.geteuid() != 0:
        print("bench: run me as root: sudo tests/bench/run.py", file=sys.stderr)
        return 1
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    quick = "--quick" in arguments
    cluster = Cluster()
    version = subprocess.run([cluster.binary, "version"], capture_output=True, text=True).stdout.strip()
    load = " ".join(f"{n:.2f}" for n in os.getloadavg())
    print(f"{version}; kernel {os.uname().release}, {os.cpu_count()} cores, load {load}{'; quick' if quick else ''}")
    print("\nBinary")
    show("size", os.stat(cluster.binary).st_size / MB, "MB", 30)
    pods = None
    try:
        if cluster.own:
            start(cluster, 3 if quick else 10)
            if server_pid() is None:
                return 1
        else:
            print("\nStart of `rk server`: not measured, a cluster runs already")
        idle(cluster, 5 if quick else 30, 15 if quick else 60)
        cluster.image()
        pods = Pods()
        memory(cluster, pods, 20, 2 if quick else 5)
        one_pod(pods, 10 if quick else 50)
        burst(pods, 100)
    finally:
        if pods:
            pods.close()
        cluster.close()
    print(f"\nload at the end {' '.join(f'{n:.2f}' for n in os.getloadavg())}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
