#!/usr/bin/env python3
"""Gives the same requests to upstream's API server and to rk's, and says in what the answers differ; see README.md."""
import argparse
import collections
import copy
import importlib
import pathlib
import sys

import yaml

import apply
import compare
import facts
import generate
import patches
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


def bases(kinds, more=()):
    for file in [*sorted((HERE / "bases").glob("*.yaml")), *more]:
        for base in yaml.safe_load_all(file.read_text()):
            if not kinds or base["kind"] in kinds:
                yield base


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
        if base["kind"] in patches.WRITTEN_BESIDE:
            theirs, ours = patches.without_status(theirs), patches.without_status(ours)
        found.note(base["kind"], "update", f"{base['metadata'].get('name')}: {step(path)}", compare.answers(theirs, ours))
    if base["kind"] not in patches.WRITTEN_BESIDE and not options.live:
        theirs, ours = both(pair, "GET", url, None, {"Accept": TABLE})
        found.note(base["kind"], "row", base["metadata"].get("name"), compare.answers(theirs, ours))
    # Others want its ports.
    both(pair, "DELETE", url, {"gracePeriodSeconds": 0})


# Real servers ask these about what else is tested: their objects come alone, and go.
ADMITTING = {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
             "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}


def groups(all_bases, options):
    """Bases whose objects are there at one time, with the requests that are theirs."""
    all_bases = list(all_bases)
    if not options.live:
        return [(all_bases, options)]
    parts = [[base for base in all_bases if (base["kind"] in ADMITTING) == alone] for alone in (True, False)]
    return [(part, argparse.Namespace(**{**vars(options), "requests": options.requests * len(part) // len(all_bases)})) for part in parts if part]


def ask(pair, options, found):
    kinds, operations = set(filter(None, options.kinds.split(","))), options.operations.split(",")
    if "verbs" in operations:
        import verbs
        verbs.run(pair, options, found)
    # First: other tests leave policies and webhooks.
    for name in filter(operations.__contains__, ("policy", "custom")):
        importlib.import_module(name).run(pair, options, found)
    for base in bases(kinds, [HERE / "warned.yaml"]):
        for name, run in (("create", creates), ("update", updates)):
            if name in operations:
                run(pair, base, facts.resources()[base["apiVersion"], base["kind"]], options, found)
    for name in filter(operations.__contains__, patches.OPERATIONS):
        for part, share in groups(bases(kinds), options):
            patches.run(pair, part, name, share, found)
    if "apply" in operations:
        for part, share in groups(bases(kinds), options):
            apply.run(pair, part, share, found)


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--oracle", help="the program facts (src/xtask/facts), built")
    parse.add_argument("--subject", help="rk's: target/.../debug/examples/differential")
    parse.add_argument("--live", metavar="XTASK,RK,BIN,OUT", help="real servers instead: programs xtask and rk, upstream's programs, a folder for logs")
    parse.add_argument("--keep", action="store_true", help="leave the labs of --live up, or use those that are")
    parse.add_argument("--kinds", default="", help="only these, by commas")
    parse.add_argument("--count", type=int, default=300, help="objects made of each base")
    parse.add_argument("--seed", default="1")
    parse.add_argument("--operations", default="create,update", help="of create, update, json, merge, strategic, apply, and of verbs, custom and policy [%(default)s]")
    parse.add_argument("--requests", type=int, default=2000, help="of each operation but create and update [%(default)s]")
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
        live.settle(pair)
    else:
        pair = [sides.Program(options.oracle, "--oracle"), sides.Program(options.subject)]
    try:
        ask(pair, options, found)
    finally:
        for side in pair:
            side.close()
        if not options.keep:
            for lab in labs:
                lab.down()
    return report(found, options)


def table(title, part, found):
    """Cases, and how many of the differences (by key) are there, by kind or by operation."""
    cases, differences = collections.Counter(), collections.Counter(key.split(" ")[part] for key in found.counts)
    for key, count in found.cases.items():
        cases[key[part]] += count
    print(f"\n{title:34} {'cases':>6} {'differences':>12}")
    for name, count in [*sorted(cases.items()), ("all", sum(cases.values()))]:
        print(f"{name:34} {count:6} {differences[name] if name != 'all' else len(found.counts):12}")


def report(found, options):
    for key in sorted(found.counts):
        if options.verbose:
            what, detail = found.examples[key]
            print(f"{found.counts[key]:4} {key}\n       {what}\n       {detail}")
    table("operation", 1, found)
    table("kind", 0, found)
    if not options.known:
        return 0
    # Go's maps are walked in another order each time, so nobody can rely on that of causes.
    keys = {key for key in found.counts if key.split(" ")[2] != "order"}
    if options.write_known:
        options.known.write_text("".join(f"{key}\n" for key in sorted(keys) if not keys & of_objects(key)))
        return 0
    known = set(options.known.read_text().splitlines())
    fresh = sorted(key for key in keys if not known & {key, *of_objects(key)})
    # A few requests of what is drawn find a few of the differences, and so do real servers, for which known.txt was not made.
    drawn = [] if options.requests >= MANY else DRAWN
    asked = (*options.operations.split(","), *(["row"] if "update" in options.operations.split(",") else []))
    gone = [] if options.live else sorted(key for key in known - keys if key.split(" ")[1].startswith(asked) and not key.split(" ")[1].startswith(tuple(drawn)))
    for key in fresh:
        print(f"differential: new: {key}\n    {found.examples[key][0]}\n    {found.examples[key][1]}")
    for key in gone:
        print(f"differential: no longer there, take it out of {options.known}: {key}")
    return 1 if fresh or gone else 0


# As many requests as find all that known.txt says of what is drawn.
MANY = 2000
DRAWN = (*patches.OPERATIONS, "apply", "custom", "policy", "verbs")


def of_objects(key):
    """A difference of a kind's objects shows in patches of them, too."""
    kind, operation, *rest = key.split(" ")
    return {" ".join([kind, other, *rest]) for other in ("create", "update") if operation.startswith((*patches.OPERATIONS, "apply"))}


if __name__ == "__main__":
    sys.exit(main())
