"""Patches of objects of all kinds, drawn by a seed: JSON, merge and strategic merge patches.

A patch makes one or a few of the changes of generate.py, or is malformed in a way of its own kind. Patches are asked for as dry runs of
one stored object.
"""
import copy
import itertools
import sys

import compare
import facts
import generate
import sides

MEDIA = {"json": "application/json-patch+json", "merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json",
         "apply": "application/apply-patch+yaml"}
OPERATIONS = ("json", "merge", "strategic")
# Their names say what they are, or others write them too.
KEPT = {"APIService", "IPAddress", "ClusterTrustBundle"}

# No object has the name of one before it, which may not be gone yet.
NUMBERS = itertools.count()


class Subject:
    """An object that both sides have."""

    def __init__(self, base):
        self.base = copy.deepcopy(base)
        # Whoever follows it would write its rules.
        self.base.pop("aggregationRule", None)
        self.resource = facts.resources()[base["apiVersion"], base["kind"]]
        self.changes = list(generate.changes(self.base, self.resource.type))

    def create(self, pair):
        """Whether both sides have it now; some are there from before."""
        number = next(NUMBERS)
        self.base["metadata"]["name"] = self.name(number)
        if self.base["kind"] == "CustomResourceDefinition":
            self.define(number)
        self.url = facts.path(self.resource, name=self.base["metadata"]["name"])
        return all(side.call("POST", facts.path(self.resource), self.base)[0] in (201, 409) for side in pair)

    def define(self, number):
        names = {"plural": f"widgets{number}", "singular": f"widget{number}", "kind": f"Widget{number}", "listKind": f"Widget{number}List", "shortNames": [f"wd{number}"]}
        self.base["spec"]["names"].update(names)
        self.changes = list(generate.changes(self.base, self.resource.type))

    def name(self, number=0):
        """Of the object that is made as this one; that of number 0 stands for all in seeds."""
        kind, name = self.base["kind"], self.base["metadata"]["name"]
        if kind == "CustomResourceDefinition":
            return f"widgets{number}.{self.base['spec']['group']}"
        if kind in KEPT:
            return name
        infix = "-p-" if kind in ("Namespace", "Service", "StatefulSet", "Job") else ".p-"
        return f"{name.split(infix)[0]}{infix}{number}"


def pointer(path):
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def at(value, path):
    for step in path:
        value = value[step]
    return value


class Draw(generate.Chance):
    def __init__(self, subject, seed):
        super().__init__(seed)
        self.subject = subject

    def change(self):
        return self.chance.choice(self.subject.changes)

    def query(self):
        query = {"dryRun": "All"}
        if self.rarely():
            query["fieldValidation"] = self.chance.choice(["Strict", "Warn", "Ignore"])
        if self.rarely(16):
            query["fieldManager"] = self.chance.choice(["m1", "x" * 129])
        return query

    # JSON patches

    def json(self):
        if self.rarely(20):
            return self.chance.choice([{}, "word", 5, None, [5], ["word"], [None], [[]], [{}]])
        return [self.operation() for _ in range(self.chance.choice([1, 1, 1, 2, 3]))]

    def operation(self):
        path, new = self.change()
        to = pointer(path)
        if new is generate.ABSENT:
            made = {"op": self.chance.choice(["remove", "remove", "test"]), "path": to}
        else:
            made = {"op": self.chance.choice(["add", "replace", "replace", "test"]), "path": to, "value": new}
        if self.rarely(6):
            other = pointer(self.change()[0])
            made = {"op": self.chance.choice(["copy", "move"]), "from": to, "path": other}
        if self.rarely(6):
            made["path"] += self.chance.choice(["/-", "/0", "/-1", "/99", "/x", "/x/y", "~1", "/"])
        if self.rarely(12):
            broken = self.chance.choice(["op", "path", "from", "value", "other"])
            made[broken] = self.chance.choice([5, None, True, "", "nothing", [], {}])
        if self.rarely(20):
            made.pop(self.chance.choice(list(made)), None)
        return made

    # Merge patches

    def merge(self):
        if self.rarely(20):
            return self.chance.choice(["word", 5, None, [], [1], {}])
        made = {}
        for _ in range(self.chance.choice([1, 1, 2])):
            path, new = self.change()
            self.nest(made, path, new)
        return made

    def nest(self, into, path, new):
        """The change as a document that holds it alone; lists as a whole."""
        index = next((i for i, step in enumerate(path) if isinstance(step, int)), len(path))
        if index < len(path):
            new = at(generate.changed(self.subject.base, path, new), path[:index])
            path = path[:index]
        for step in path[:-1]:
            if not isinstance(into.get(step), dict):
                into[step] = {}
            into = into[step]
        if path:
            into[path[-1]] = None if new is generate.ABSENT else new

    # Strategic merge patches

    def strategic(self):
        if self.rarely(20):
            return self.chance.choice(["word", 5, None, [], {}, {"$patch": "delete"}, {"$patch": "nothing"}, {"$patch": 5}])
        path, new = self.change()
        made = self.toward(self.subject.base, self.subject.resource.type, path, new, None)
        return made if isinstance(made, dict) else {}

    def toward(self, value, kind, path, new, field):
        if not path:
            return None if new is generate.ABSENT else new
        step, rest = path[0], path[1:]
        if isinstance(step, int):
            key = field.merge_key if field else ""
            item = value[step] if step < len(value) else {}
            inner = self.toward(item, kind[2:], rest, new, field)
            if key and isinstance(inner, dict) and isinstance(item, dict):
                made = [{key: item.get(key), **inner}]
                if self.rarely(4):
                    made[0]["$patch"] = self.chance.choice(["delete", "replace", "merge", "nothing"])
                if self.rarely(8):
                    made.append({"$patch": self.chance.choice(["replace", "delete", "nothing"])})
                if self.rarely(8):
                    made[0].pop(key)
                return made
            return at(generate.changed({"l": value}, ("l", step, *rest), new), ("l",))
        if kind[:2] == "{}":
            return {step: self.toward(value.get(step), kind[2:], rest, new, field)}
        fields = facts.types().get(kind, {})
        one = fields.get(step)
        made = {step: self.toward(value.get(step), one.type if one else "", rest, new, one)}
        if self.rarely():
            made["$patch"] = self.chance.choice(["replace", "merge", "delete", "nothing"])
        if self.rarely(12):
            made["$retainKeys"] = self.chance.choice([[step], [], list(value)[:2] if isinstance(value, dict) else [], "word", [5]])
        if one and one.strategy.startswith("merge") and isinstance(value.get(step), list) and self.rarely(3):
            items = value[step]
            keyed = [{one.merge_key: i.get(one.merge_key)} if one.merge_key and isinstance(i, dict) else i for i in items]
            order = self.chance.choice([keyed, keyed[::-1], keyed[:1], [], "word", keyed + [{one.merge_key: "zz"} if one.merge_key else "zz"]])
            made[f"$setElementOrder/{step}"] = order
            if not one.merge_key and self.rarely(2):
                made[f"$deleteFromPrimitiveList/{step}"] = self.chance.choice([items[:1], ["zz"], "word", [5]])
        return made


# rk's server writes their status (and upstream the time of a taint) beside the test.
WRITTEN_BESIDE = {"APIService", "FlowSchema", "PriorityLevelConfiguration", "DeviceTaintRule", "CustomResourceDefinition"}


def without_status(answer):
    code, body, warnings = answer
    if code < 300 and isinstance(body, dict):
        body.pop("status", None)
        for field in ("generation", "managedFields"):
            body.get("metadata", {}).pop(field, None)
    return code, body, warnings


def flat(found):
    """Differences of what is managed are named by the part of managedFields, not by each path in it."""
    seen = set()
    for name, field, detail in found:
        field = field.split(".fieldsV1")[0] + (".fieldsV1" if ".fieldsV1" in field else "")
        if (name, field) not in seen:
            seen.add((name, field))
            yield name, field, detail


def run(pair, bases, kind, options, found):
    """`options.requests` patches of one kind, over all bases in turn."""
    from verbs import encoded
    compare.managed_fields = True
    subjects = made(pair, bases)
    draws = [Draw(subject, f"{kind} {options.seed} {subject.base['kind']} {subject.name()}") for subject in subjects]
    for number in range(options.requests):
        draw = draws[number % len(draws)]
        subject, query, text = draw.subject, draw.query(), sides.text(getattr(draw, kind)())
        answers = [side.call("PATCH", subject.url + encoded(query), text, {"Content-Type": MEDIA[kind], "User-Agent": "differential"}) for side in pair]
        if subject.base["kind"] in WRITTEN_BESIDE:
            answers = [without_status(answer) for answer in answers]
        found.note(subject.base["kind"], kind, f"{number}: {subject.url}{encoded(query)} {text[:1500]}", flat(compare.answers(*answers)))
    for subject in subjects:
        remove(pair, subject)
    compare.managed_fields = False


def made(pair, bases):
    """An object of each base; says of which there is none."""
    subjects = list(map(Subject, bases))
    lacking = [subject for subject in subjects if not subject.create(pair)]
    for subject in lacking:
        print(f"differential: there is no {subject.base['kind']} {subject.base['metadata']['name']} on both sides", file=sys.stderr)
    return [subject for subject in subjects if subject not in lacking]


def remove(pair, subject):
    """Whoever would take the finalizers off may not be there."""
    for side in pair:
        code, left, _ = side.call("DELETE", subject.url, {"gracePeriodSeconds": 0})
        if code < 300 and left.get("metadata", {}).get("finalizers"):
            side.call("PATCH", subject.url, {"metadata": {"finalizers": None}}, {"Content-Type": MEDIA["merge"]})


def again(pair, subject):
    remove(pair, subject)
    subject.create(pair)
