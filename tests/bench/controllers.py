#!/usr/bin/env python3
"""Measures workload controllers at upstream's sizes: rolling update, the same under a quota, Jobs, CronJobs, the end of a namespace, garbage, and
what is left of memory over rounds of small loads. tests/bench/autoscaling.py has the autoscaler.

usage: sudo tests/bench/controllers.py [--quick] [--upstream] [--qps N] [--rounds N] [--of LOAD] [--rest SECONDS] [LOAD ...]

The control plane runs in a lab (`cargo xtask lab`): `rk server` from RK_BINARY, or with --upstream etcd, kube-apiserver and
kube-controller-manager as tests/conformance/build.sh --upstream makes them (--qps: what the latter may ask for in a second, 20 where nothing is
said; it has no scheduler, so the load binds its pods itself, which --bind does for rk too). Nodes are simulated by the load
(src/controllers/examples/controllers_load). RK_LOAD and XTASK name the two programs where they are built already.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))

import subject  # noqa: E402


def built(variable, *what):
    if variable in os.environ:
        return os.environ[variable]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "x86_64-unknown-linux-gnu/debug"
    subprocess.run(["cargo", "build", "-j2", "--quiet", *what[:-1]], check=True, cwd=ROOT)
    return str(target / what[-1])


def named(name, data):
    """The processes of this program that work in the folder, by their ids here: those of a lab's machine have other ids inside."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == name and any(data in word for word in words):
            found.append(process.name)
    return found


class Rk(subject.Lab):
    def up(self, options):
        rk = built("RK_BINARY", "--package", "rk", "rk")
        self.task("up", "--name", self.name, "--servers", 1, "--agents", 0, "--binary", rk)
        self.kubeconfig = f"/run/rk-lab/{self.name}/kubeconfig.yaml"

    def processes(self):
        inside = subprocess.run(self.command("server-1", "cat", "/run/rk/server.lock"), check=True, capture_output=True, text=True).stdout.strip()
        space = subprocess.run(self.command("server-1", "readlink", "/proc/self/ns/pid"), check=True, capture_output=True, text=True).stdout.strip()
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                ids = re.search(r"^NSpid:\s+(.*)", (process / "status").read_text(), re.M)[1].split()
                if ids[-1] == inside and len(ids) > 1 and os.readlink(process / "ns/pid") == space:
                    return [process.name]
            except OSError:
                continue
        raise SystemExit("the server's process is not found")


class Upstream(subject.Upstream):
    def up(self, options):
        limits = [f"--kube-api-qps={options.qps}", f"--kube-api-burst={options.qps * 2}"] if options.qps else []
        super().up(etcd=[], manager=limits)

    def processes(self):
        return [i for name in ("etcd", "kube-apiserver", "kube-controller-manager") for i in named(name, str(self.out))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--upstream", action="store_true", help="upstream's control plane instead of rk's")
    parser.add_argument("--bind", action="store_true", help="pods get their nodes from the load, not from the scheduler")
    parser.add_argument("--rounds", type=int, default=10, help="of the load of this name")
    parser.add_argument("--of", default="", help="what each round does, where it is not a little of everything: rollout, jobs, namespace, garbage")
    parser.add_argument("--rest", type=int, default=630, help="seconds before it is said what is left of rounds")
    parser.add_argument("--qps", type=int, help="of upstream's controller manager")
    parser.add_argument("--name", default="bench-ctrl", help="of the lab")
    options = parser.parse_args()
    load = built("RK_LOAD", "--package", "controllers", "--example", "controllers_load", "examples/controllers_load")
    xtask = built("XTASK", "--package", "xtask", "xtask")
    # Not below /tmp, which may be memory: what the disk costs belongs to the figures.
    with tempfile.TemporaryDirectory(prefix="rk-bench-", dir="/var/tmp") as out:
        out = pathlib.Path(out)
        bin = pathlib.Path(os.environ.get("RK_CACHE", pathlib.Path.home() / ".cache/rk")) / "conformance/bin"
        lab = Upstream(xtask, options.name, out, bin) if options.upstream else Rk(xtask, options.name, out)
        try:
            lab.up(options)
            time.sleep(5)
            flags = [flag for flag, wanted in (("--quick", options.quick), ("--bind", options.bind or options.upstream)) if wanted]
            flags += [f"--rounds={options.rounds}", f"--of={options.of}", f"--rest={options.rest}"]
            pids = ",".join(lab.processes())
            return subprocess.run(lab.command("hub", load, lab.kubeconfig, *flags, f"--pids={pids}", *options.loads), stdin=subprocess.DEVNULL).returncode
        finally:
            if "RK_KEEP_LOGS" in os.environ:
                for name, path in lab.logs().items():
                    pathlib.Path(os.environ["RK_KEEP_LOGS"], f"{name}.log").write_bytes(path.read_bytes())
            lab.down()
            print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
