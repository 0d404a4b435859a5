#!/usr/bin/env python3
"""Measures what people bring themselves beside upstream's API server in the same run: applies, custom resources, policies, servers that fail.

usage: sudo tests/bench/extensions.py [--quick] [--only rk|upstream] [--part definitions|objects|rounds] [--manager] [--name LAB]

Servers and figures as in tests/bench/api.py, whose environment it wants, with RK_LOAD for src/rk/examples/extensions. Each part has a server
of its own that is new: `definitions` come, stay and go; `objects` are applied, created and listed, and trouble is made while others ask;
in `rounds` definitions and objects come and go, and memory is looked at after each round, when it has been quiet for a while.
The load average stands before and after each part. rk's controllers cannot be told not to look at what is applied: --manager has upstream's do
the same beside its server, as fast as they can.
"""
import argparse
import os
import re
import sys
import time

import api
from api import memory, subject

# At full size, and for a short look.
SIZES = {
    "definitions that stay": (500, 50),
    "definitions that come and go": (1000, 100),
    "first objects": (10, 5),
    "objects": (10_000, 500),
    "seconds of a rate": (5, 1),
    "seconds of trouble": (20, 5),
    "seconds until memory is looked at": (60, 10),
    "rounds": (5, 2),
    "objects that come and go": (20_000, 1000),
    "seconds of quiet after a round": (120, 120),
}


class Upstream(api.Upstream):
    def flags(self):
        # Nobody speaks for the addresses of Services here, so it must find endpoints itself.
        return [*subject.front_proxy_flags(self.pki), "--enable-aggregator-routing=true"]

    def start_manager(self):
        self.running.append(self.start(
            "hub", self.bin / "kube-controller-manager", *subject.manager_flags(self.kubeconfig, self.pki), "--kube-api-qps=10000",
            "--kube-api-burst=10000", log="kube-controller-manager.log"))


def definitions(lab, phase, size):
    figures = {}

    def run(*words):
        figures.update(phase(*words))

    settle = size["seconds until memory is looked at"]
    first, stay, churn = size["first objects"], size["definitions that stay"], size["definitions that come and go"]
    memory(lab, figures, "memory, empty")
    run("first", "--count", first)
    run("install", "--count", stay)
    time.sleep(settle)
    memory(lab, figures, f"memory with {stay} definitions")
    figures["memory of the definitions"] = figures[f"memory with {stay} definitions"] - figures["memory, empty"]
    run("first", "--count", first, "--label", f", {stay} there")
    memory(lab, figures, "memory before definitions come and go")
    run("churn", "--count", churn)
    time.sleep(settle)
    memory(lab, figures, f"memory after {churn} more have come and gone")
    return figures


def objects(lab, phase, size):
    figures = {}

    def run(*words):
        figures.update(phase(*words))

    seconds = size["seconds of a rate"]
    run("writes", "--seconds", seconds)
    run("fill", "--count", size["objects"])
    run("lists", "--seconds", seconds)
    run("trouble", "--seconds", size["seconds of trouble"], "--address", f"10.99.{lab.state()['network']}.1")
    return figures


def rounds(lab, phase, size):
    figures = {}
    memory(lab, figures, "memory, empty, before the rounds")
    definitions, others = size["definitions that come and go"], size["objects that come and go"]
    for words, count, what in [("churn", definitions, f"{definitions} definitions"), ("turnover", others, f"{others} ConfigMaps and {others // 2} Pods")]:
        for number in range(size["rounds"]):
            figures.update(phase(words, "--count", count))
            time.sleep(size["seconds of quiet after a round"])
            memory(lab, figures, f"memory after round {number + 1} of {what} that came and went")
    return figures


PARTS = {"definitions": definitions, "objects": objects, "rounds": rounds}


def ratio(what, ours, theirs):
    """How many times better: of rates, of times, of memory. Of what others notice the 99th percentile counts, of times the median."""
    if not isinstance(ours, dict):
        return theirs / ours
    if "seconds" in ours:
        return theirs["seconds"] / ours["seconds"]
    if re.match("others' requests", what):
        return theirs["p99_ms"] / ours["p99_ms"]
    if re.match("from definition|end of a watch", what):
        return theirs["p50_ms"] / ours["p50_ms"]
    return ours["per_second"] / theirs["per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["rk", "upstream"])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--manager", action="store_true", help="upstream's controllers beside its server")
    parser.add_argument("--name", default="bench-extensions")
    options = parser.parse_args()
    size = {what: sizes[options.quick] for what, sizes in SIZES.items()}
    xtask, rk, load = api.programs("extensions")
    results = {}
    for name, part in PARTS.items():
        if options.part not in (None, name):
            continue
        for kind in (api.Rk, Upstream):
            if options.only and (options.only == "rk") != (kind is api.Rk):
                continue
            with api.subject_of(kind, options.name, xtask, rk) as lab:
                if options.manager and kind is Upstream:
                    lab.start_manager()
                print(f"{lab.label:<15} {name}, load average {os.getloadavg()[0]:.2f} before", flush=True)
                figures = part(lab, lambda *words: api.phase(lab, load, *words), size)
                print(f"{lab.label:<15} {name}, load average {os.getloadavg()[0]:.2f} after", flush=True)
                results.setdefault(kind.label, {}).update(figures)
    if len(results) == 2:
        print("\nas many times better than upstream: rate, time, memory; others' requests by their 99th percentile")
        ours, theirs = results[api.Rk.label], results[Upstream.label]
        for what, figure in ours.items():
            if what in theirs:
                print(f"  {what:<80} {ratio(what, figure, theirs[what]):8.2f}")


if __name__ == "__main__":
    sys.exit(main())
