#!/usr/bin/env python3
"""Runs upstream's conformance tests; run.sh prepares what this needs. See README.md."""
import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import choose
import history
import report
import subject

CACHE = pathlib.Path(os.environ.get("RK_CACHE", os.path.expanduser("~/.cache/rk"))) / "conformance"
BIN = CACHE / "bin"
KEPT_RUNS = 20


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--focus", metavar="RE", help="tests whose name matches")
    which.add_argument("--sig", help="tests of a group, like apps")
    which.add_argument("--list", type=pathlib.Path, metavar="FILE", help="tests named in a file")
    which.add_argument("--passing", action="store_true", help="tests of passing.txt")
    which.add_argument("--slice", action="store_true", help="five minutes of passing.txt that rotate with the commit, and what changed code asks for")
    which.add_argument("--all", action="store_true", help="all tests")
    parser.add_argument("--skip", metavar="RE", help="leave out tests whose name matches")
    parser.add_argument("--jobs", type=int, default=8, help="tests at once [%(default)s]")
    parser.add_argument("--agents", type=int, help="machines beside the server [2; with --guest 0]")
    parser.add_argument("--network-backend", help="how pods of other machines are reached [as rk chooses]")
    parser.add_argument("--timeout", default="3h", help="of each part of the run [%(default)s]")
    wire = parser.add_mutually_exclusive_group()
    wire.add_argument("--json", action="store_const", dest="wire", const="application/json", help="the suite's clients speak JSON")
    wire.add_argument("--protobuf", action="store_const", dest="wire", const="application/vnd.kubernetes.protobuf", help="... protobuf, as they do by default")
    parser.add_argument("--record", action="store_true", help="count passes; three in a row put a test into passing.txt")
    parser.add_argument("--no-retry", action="store_true", help="do not run failed tests once more alone")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("--name", default="conformance", help="of the lab [%(default)s]")
    parser.add_argument("--etcd", action="store_true", help="rk keeps its state in an etcd on the server's machine")
    parser.add_argument("--guest", action="store_true", help="in virtual machines with cgroup v2 and systemd")
    args = parser.parse_args()
    if args.agents is None:
        args.agents = 0 if args.guest else 2
    return args


def chosen(args, seconds):
    names = choose.everything()
    if args.focus:
        names = [n for n in names if re.search(args.focus, n)]
    elif args.sig:
        names = [n for n in names if n.startswith(f"[sig-{args.sig.removeprefix('sig-')}]")]
    elif args.list:
        wanted = {choose.key(n) for n in choose.read(args.list)}
        unknown = wanted - {choose.key(n) for n in names}
        if unknown:
            sys.exit("conformance: no such tests: " + "; ".join(sorted(unknown)))
        names = [n for n in names if choose.key(n) in wanted]
    elif args.passing:
        names = choose.passing()
    elif args.slice:
        names = choose.slice_of(choose.passing(), seconds, args.jobs)
    return [n for n in names if not (args.skip and re.search(args.skip, n))]


class Run:
    def __init__(self, args, cluster, out):
        self.args, self.cluster, self.out, self.parts = args, cluster, out, 0

    def ginkgo(self, names, jobs):
        """Runs these tests, `jobs` at once; their results."""
        if not names:
            return []
        self.parts += 1
        part = self.out / f"part-{self.parts}"
        part.mkdir()
        command = [
            BIN / "ginkgo", f"--procs={jobs}", f"--timeout={self.args.timeout}", "--no-color", "--output-interceptor-mode=none", "--keep-going",
            "--json-report=report.json", "--junit-report=junit.xml", f"--output-dir={part}", *[f"--focus={f}" for f in choose.focus(names)],
            BIN / "e2e.test", "--", f"--kubeconfig={self.cluster.kubeconfig}", "--provider=skeleton", f"--kubectl-path={BIN}/kubectl",
            f"--num-nodes={self.cluster.nodes}", "--disable-log-dump", f"--report-dir={part}",
            # A cluster that is not whole fails at once, not after half an hour.
            "--node-schedulable-timeout=3m", "--system-pods-startup-timeout=3m"]
        if self.args.wire:
            command.append(f"--kube-api-content-type={self.args.wire}")
        print(f"conformance: {len(names)} tests, {jobs} at once; log {part}/log", flush=True)
        with open(part / "log", "wb") as log:
            child = subprocess.Popen(self.cluster.command("hub", *command), cwd=part, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            child.wait()
        results = report.read(part / "report.json")
        if not results:
            print("".join((part / "log").read_text(errors="replace").splitlines(keepends=True)[-30:]))
        return results

    def everything(self, names):
        events = self.out / "events"
        with open(events, "wb") as file:
            watch = subprocess.Popen(self.cluster.command("hub", BIN / "kubectl", "--kubeconfig", self.cluster.kubeconfig, "get", "events", "-A", "--watch", "-o", "json"),
                                     stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL)
        results = self.ginkgo([n for n in names if not choose.serial(n)], self.args.jobs)
        results += self.ginkgo([n for n in names if choose.serial(n)], 1)
        failed = [r for r in results if not r.passed]
        for result in failed:
            print(f"failed: {result.name}\n  {report.keep(result, self.out / 'failed', self.cluster.logs(), events)}", flush=True)
        # Many failures are no flakes, and each costs its whole time again.
        again = [] if self.args.no_retry or len(failed) > max(10, len(names) // 10) else self.ginkgo([r.name for r in failed], 1)
        for second in again:
            first = next(r for r in results if choose.key(r.name) == choose.key(second.name))
            if second.passed:
                first.passed, first.flaky = True, True
            else:
                report.keep(second, self.out / "failed-twice", self.cluster.logs(), events)
        watch.kill()
        watch.wait()
        return results


def new_folder():
    runs = CACHE / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir())[:-KEPT_RUNS + 1]:
        shutil.rmtree(old)
    out = runs / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir()
    return out


def main():
    args = arguments()
    record = history.History(CACHE / "history.json")
    names = chosen(args, record.seconds())
    if not names:
        print("conformance: no tests to run")
        return 0
    out = new_folder()
    (out / "tmp").mkdir()
    os.environ["TMPDIR"] = str(out / "tmp")
    xtask = pathlib.Path(os.environ["XTASK"])
    if args.guest:
        import guest
        cluster = guest.Guest(xtask, args.name, out, pathlib.Path(os.environ["RK_BINARY"]), args.agents, CACHE, args.network_backend)
    elif os.environ.get("RK_TEST_SUBJECT", "rk") == "upstream":
        cluster = subject.Upstream(xtask, args.name, out, BIN)
    else:
        cluster = subject.Rk(xtask, args.name, out, os.environ["RK_BINARY"], args.agents, CACHE / "images", BIN / "etcd" if args.etcd else None, args.network_backend)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start = time.monotonic()
    try:
        cluster.up()
        print(f"conformance: the cluster is up after {time.monotonic() - start:.0f} s", flush=True)
        results = Run(args, cluster, out).everything(names)
    finally:
        if not args.keep:
            cluster.down()
        shutil.rmtree(out / "tmp")
    fine = report.show(results, names, choose.passing())
    print(f"{time.monotonic() - start:.0f} s in all; kept in {out}")
    if args.record:
        record.add(results)
        for name in record.promote():
            print(f"now in passing.txt: {name}")
    return 0 if fine else 1


sys.exit(main())
