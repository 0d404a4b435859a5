#!/usr/bin/env python3
"""Gives the same requests to upstream's API server and to rk's, and says in what the answers differ; see README.md."""
import argparse
import collections
import copy
import pathlib
import sys

import yaml

import compare
import facts
import generate
import sides

HERE = pathlib.Path(__file__).parent
PUT, TABLE = "PUT", "application/json;as=Table;v=v1;g=meta.k8s.io"


class Differences:
    """Counts differences by key; keeps one example of each."""

    def __init__(self):
        self.counts, self.examples, self.cases = collections.Counter(), {}, collections.Counter()

    def note(self, kind, operation, what, found):
        self.cases[kind, operation] += 1
        for name, field, detail in found:
            key = f"{kind} {operation} {name} {field}".strip()
            self.counts[key] += 1
            self.examples.setdefault(key, (what, detail))


def bases(kinds):
    for file in sorted((HERE / "bases").glob("*.yaml")):
        for base in yaml.safe_load_all(file.read_text()):
            if not kinds or base["kind"] in kinds:
                yield base


# rk's server writes their status (and upstream the time of a taint) beside the test.
WRITTEN_BESIDE = {"APIService", "FlowSchema", "PriorityLevelConfiguration", "DeviceTaintRule"}


def without_status(answer):
    code, body, warnings = answer
    if code < 300 and isinstance(body, dict):
        body.pop("status", None)
        body.get("metadata", {}).pop("generation", None)
    return code, body, warnings


def both(pair, *request):
    return [side.call(*request) for side in pair]


def step(path):
    return ".".join(map(str, path))


def creates(pair, base, resource, options, found):
    url = facts.path(resource) + "?dryRun=All"
    for path, changed in generate.cases(base, resource.type, options.count, options.seed):
        theirs, ours = both(pair, "POST", url, changed)
        if not path and theirs[0] >= 300:
            print(f"base is refused: {base['kind']} {base['metadata']['name']}: {compare.text_of(theirs[1])}", file=sys.stderr)
        found.note(base["kind"], "create", f"{base['metadata'].get('name')}: {step(path)}", compare.answers(theirs, ours))


def replace(side, url, body):
    """Controllers (of RBAC, APIServices, flow control) may have written in between: then once more."""
    answer = side.call(PUT, url + "?dryRun=All", body)
    if answer[0] == 409 and "has been modified" in compare.text_of(answer[1]):
        body["metadata"]["resourceVersion"] = side.call("GET", url)[1]["metadata"]["resourceVersion"]
        answer = side.call(PUT, url + "?dryRun=All", body)
    return answer


def updates(pair, base, resource, options, found):
    old = copy.deepcopy(base)
    old["metadata"]["name"] = base["metadata"]["name"]
    stored = both(pair, "POST", facts.path(resource), old)
    if any(code >= 300 for code, _, _ in stored):
        return
    versions = [body["metadata"]["resourceVersion"] for _, body, _ in stored]
    url = facts.path(resource, name=old["metadata"]["name"])
    for path, changed in generate.cases(old, resource.type, options.count, options.seed + "update"):
        if path[:2] == ("metadata", "name") or path[:2] == ("metadata", "namespace") or not isinstance(changed.get("metadata"), dict):
            continue
        bodies = [copy.deepcopy(changed) for _ in pair]
        for body, version in zip(bodies, versions):
            if isinstance(body.get("metadata"), dict):
                body["metadata"]["resourceVersion"] = version
        theirs, ours = (replace(side, url, body) for side, body in zip(pair, bodies))
        if base["kind"] in WRITTEN_BESIDE:
            theirs, ours = without_status(theirs), without_status(ours)
        found.note(base["kind"], "update", f"{base['metadata'].get('name')}: {step(path)}", compare.answers(theirs, ours))
    if base["kind"] in WRITTEN_BESIDE:
        return
    theirs, ours = both(pair, "GET", url, None, {"Accept": TABLE})
    found.note(base["kind"], "row", base["metadata"].get("name"), compare.answers(theirs, ours))


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--oracle", help="the program facts (src/xtask/facts), built")
    parse.add_argument("--subject", help="rk's: target/.../debug/examples/differential")
    parse.add_argument("--live", metavar="XTASK,RK,BIN,OUT", help="real servers instead: programs xtask and rk, upstream's programs, a folder for logs")
    parse.add_argument("--keep", action="store_true", help="leave the labs of --live up, or use those that are")
    parse.add_argument("--kinds", default="", help="only these, by commas")
    parse.add_argument("--count", type=int, default=300, help="objects made of each base")
    parse.add_argument("--seed", default="1")
    parse.add_argument("--operations", default="create,update", help="of create, update and verbs [%(default)s]")
    parse.add_argument("--requests", type=int, default=2000, help="of the operation verbs [%(default)s]")
    parse.add_argument("--known", type=pathlib.Path, help="file of differences that are known: any other fails, and so does one that is gone")
    parse.add_argument("--write-known", action="store_true", help="write that file instead")
    parse.add_argument("--verbose", action="store_true", help="an example of each difference")
    options = parse.parse_args()
    found = Differences()
    labs = []
    if options.live:
        import live
        xtask, binary, programs, out = map(pathlib.Path, options.live.split(","))
        labs = live.labs(xtask, binary, programs, out, "diff", options.keep)
        pair = [live.relay(lab) for lab in labs]
    else:
        pair = [sides.Program(options.oracle, "--oracle"), sides.Program(options.subject)]
    kinds = set(filter(None, options.kinds.split(",")))
    if "verbs" in options.operations.split(","):
        import verbs
        verbs.run(pair, options, found)
    for base in bases(kinds) if options.operations != "verbs" else ():
        resource = facts.resources()[base["apiVersion"], base["kind"]]
        for name, run in (("create", creates), ("update", updates)):
            if name in options.operations.split(","):
                run(pair, base, resource, options, found)
    for side in pair:
        side.close()
    if not options.keep:
        for lab in labs:
            lab.down()
    return report(found, options)


def report(found, options):
    by_kind = collections.Counter()
    for key in found.counts:
        by_kind[key.split(" ")[0]] += 1
    for key in sorted(found.counts):
        if options.verbose:
            what, detail = found.examples[key]
            print(f"{found.counts[key]:4} {key}\n       {what}\n       {detail}")
    print(f"\n{'kind':34} {'cases':>6} {'differences':>12}")
    cases = collections.Counter()
    for (kind, _), count in found.cases.items():
        cases[kind] += count
    for kind, count in sorted(cases.items()):
        print(f"{kind:34} {count:6} {by_kind[kind]:12}")
    print(f"{'all':34} {sum(cases.values()):6} {len(found.counts):12}")
    if not options.known:
        return 0
    # Go's maps are walked in another order each time, so nobody can rely on that of causes.
    keys = {key for key in found.counts if key.split(" ")[2] != "order"}
    if options.write_known:
        options.known.write_text("".join(f"{key}\n" for key in sorted(keys)))
        return 0
    known = set(options.known.read_text().splitlines())
    fresh, gone = sorted(keys - known), sorted(known - keys)
    for key in fresh:
        print(f"differential: new: {key}\n    {found.examples[key][0]}\n    {found.examples[key][1]}")
    for key in gone:
        print(f"differential: no longer there, take it out of {options.known}: {key}")
    return 1 if fresh or gone else 0


if __name__ == "__main__":
    sys.exit(main())
