"""Broken and unusual objects: every field of a valid one changed, removed, doubled or added, one (or two) at a time.

All of them are listed in one order; a seed chooses which are used, so that the same seed and count always give the same cases.
"""
import copy
import random

import facts

LONG = "a" * 300
STRINGS = ["", "Bad_Name!", LONG, "unknown", "a"]
BY_TYPE = {
    "bool": [True, False],
    "int32": [-1, 0, 1, 70000, 2147483647],
    "int64": [-1, 0, 1, 70000, 2**62],
    "int": [-1, 0, 1, 70000],
    "uint32": [0, 1],
    "float64": [0.5],
    "bytes": ["", "eHl6", "%%"],
}
BY_STRUCT = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["-1", "0", "1m", "1.5", "x"],
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": [-1, 0, 70000, "150%", "bad value", "http"],
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": ["2026-01-02T03:04:05Z", "yesterday"],
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": ["2026-01-02T03:04:05.123456Z"],
    "io.k8s.apimachinery.pkg.apis.meta.v1.Duration": ["1m30s", "-5s"],
}
# What the server sets, or what belongs to another test.
SKIPPED = {"managedFields", "creationTimestamp", "deletionTimestamp", "uid", "resourceVersion", "selfLink", "apiVersion", "kind", "status",
           "deletionGracePeriodSeconds", "generateName"}


class Chance:
    """What is drawn by a seed."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def some(self, *values):
        return copy.deepcopy(self.chance.choice(values))

    def rarely(self, one_in=8):
        return self.chance.randrange(one_in) == 0


def scalars(kind, field):
    if kind == "string":
        return STRINGS + (field.enum[:6] if field else [])
    return BY_TYPE.get(kind) or BY_STRUCT.get(kind)


def element(kind):
    return kind[2:] if kind[:2] in ("[]", "{}") else None


def sample(kind, depth, field=None):
    """A value of a type with little in it; with more the deeper it may go."""
    values = scalars(kind, field)
    if values:
        return (field.enum[0] if field and field.enum else "a") if kind == "string" else values[-2] if kind == "bool" else values[min(2, len(values) - 1)]
    if kind.startswith("[]"):
        return [sample(kind[2:], depth, field)] if depth >= 0 else []
    if kind.startswith("{}"):
        return {"k": sample(kind[2:], depth)}
    fields = facts.types().get(kind)
    if not fields or depth <= 0:
        return {}
    return {f.name: sample(f.type, depth - 1, f) for f in fields.values() if f.name not in SKIPPED}


def changes(value, kind, path=(), field=None):
    """(path, new value or ABSENT) for everything in `value`, which is of type `kind`."""
    values = scalars(kind, field)
    if values:
        yield from ((path, v) for v in values if v != value)
        if kind == "string":
            yield path, 5
        return
    if kind.startswith("[]"):
        if isinstance(value, list):
            yield path, []
            if value:
                yield path, value + [value[0]]
                yield path, value + [sample(kind[2:], 0)]
                yield path, [sample(kind[2:], 1)]
            for i, item in enumerate(value):
                yield from changes(item, kind[2:], (*path, i), field)
        return
    if kind.startswith("{}"):
        if isinstance(value, dict):
            yield path, {}
            for key in ("", "Bad Key!", "a/b/c", "kubernetes.io/" + LONG):
                yield path, {**value, key: sample(kind[2:], 0)}
            for key, item in value.items():
                yield from changes(item, kind[2:], (*path, key))
        return
    fields = facts.types().get(kind)
    if not fields or not isinstance(value, dict):
        return
    if path:
        yield path, {}
    for name, one in fields.items():
        if name in SKIPPED and not (name == "status" and path):
            continue
        here = (*path, name)
        if name in value:
            yield here, ABSENT
            yield from changes(value[name], one.type, here, one)
            continue
        seen = []
        for new in (scalars(one.type, one) or [sample(one.type, depth, one) for depth in (0, 1, 2)]):
            if new not in seen:
                seen.append(new)
                yield here, new


ABSENT = object()


def changed(base, path, new):
    result = copy.deepcopy(base)
    at = result
    for step in path[:-1]:
        at = at[step]
    if new is ABSENT:
        del at[path[-1]]
    else:
        at[path[-1]] = copy.deepcopy(new)
    return result


def cases(base, type_name, count, seed):
    """At most `count` objects, the base first, each with the path that says what was done to it."""
    every = list(changes(base, type_name))
    chance = random.Random(f"{seed} {base['kind']} {base['metadata'].get('name')}")
    if len(every) > count:
        every = [every[i] for i in sorted(chance.sample(range(len(every)), count))]
    yield (), base
    for path, new in every:
        yield path, changed(base, path, new)
    for _ in range(count // 10):
        (first, one), (second, two) = chance.choice(every), chance.choice(every)
        try:
            yield (*first, "+", *second), changed(changed(base, first, one), second, two)
        except (KeyError, IndexError, TypeError):
            continue
