"""What two answers differ in, as (class, field, detail): without what is made up anew each time."""
import collections
import json
import re

# Ids, times, versions: different in any two servers.
managed_fields = False
VOLATILE = {"uid", "creationTimestamp", "resourceVersion", "selfLink", "continue", "remainingItemCount"}
# What is given out: the oracle has nobody who does, and two servers never agree.
GIVEN_OUT = {"clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort"}
TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SCHEME = re.compile(r'in scheme "[^"]*"')
# The compiler's name for the type of a schema.
SELF_TYPE = re.compile(r"selfType\d+")
ADDRESS = re.compile(r"\b10\.43\.\d+\.\d+\b")
TOKEN_VOLUME = re.compile("kube-api-access-[a-z0-9]{5}")
AGE = re.compile(r"^(\d+[smhdy])+$")
LONG = re.compile("a{40,}")
UIDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

MADE_UP = ((TIMES, "TIME"), (UIDS, "UID"), (LONG, "a..."), (SCHEME, "in scheme"), (SELF_TYPE, "selfType"), (TOKEN_VOLUME, "kube-api-access"), (ADDRESS, "ADDRESS"))


def place(field):
    """A field path without indexes and keys."""
    return re.sub(r"\[[^\]]*\]", "[*]", field or "")


def without_ids(value):
    if not isinstance(value, str):
        return value
    if AGE.match(value):
        return "AGE"
    for pattern, name in MADE_UP:
        value = pattern.sub(name, value)
    return value


def manager(entry):
    return [entry.get(name, "") for name in ("manager", "operation", "subresource", "apiVersion")]


def objects(theirs, ours, path=""):
    """Differing fields of two objects."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            parent = path.split(".")[-1]
            # rk's columns are not described.
            if key == "description" and parent == "columnDefinitions[*]":
                continue
            if key in VOLATILE and parent in ("metadata", "") or key in GIVEN_OUT or key == "managedFields" and not managed_fields:
                continue
            if key == "managedFields" and key in theirs and key in ours:
                # Entries stand in the order of their times, which are whole seconds.
                yield from objects(*(sorted(side[key], key=manager) for side in (theirs, ours)), f"{path}.{key}")
                continue
            here = f"{path}.{key}"
            if key not in ours:
                yield "object-lacks", here, json.dumps(theirs[key])[:200]
            elif key not in theirs:
                yield "object-has", here, json.dumps(ours[key])[:200]
            else:
                yield from objects(theirs[key], ours[key], here)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for one, other in zip(theirs, ours):
            yield from objects(one, other, path + "[*]")
    elif without_ids(theirs) != without_ids(ours):
        yield "object-differs", path, f"{json.dumps(theirs)[:200]} | {json.dumps(ours)[:200]}"


def without_value(message):
    """The message of a cause without the value that it prints, when that is no scalar."""
    return re.sub(r"^([A-Z][a-z]+ value): (\{.*\}|\[.*\]|null)(?=$|: )", r"\1", message, flags=re.S)


def causes(status):
    found = status.get("details", {}).get("causes", []) if isinstance(status, dict) else []
    return [(c.get("reason", ""), c.get("field", ""), without_patched(c.get("field", ""), without_ids(c.get("message", "")))) for c in found]


def without_patched(field, message):
    """What a patch made of an object is shown as one wrong value, with its fields in the order of Go's structs: not compared."""
    return re.sub(r'^Invalid value: "(\\.|[^"\\])*"', "Invalid value: ...", message, flags=re.S) if field == "patch" else message


def answers(theirs, ours):
    """All differences of two answers `(code, body, warnings)`."""
    (code, body, warnings), (our_code, our_body, our_warnings) = theirs, ours
    if not code or not our_code:
        yield "panic", "upstream" if not code else "rk", str(our_body if code else body)[:300]
        return
    if warnings != our_warnings:
        for text in warnings:
            if text not in our_warnings:
                yield "warning-lacks", "", text
        for text in our_warnings:
            if text not in warnings:
                yield "warning-has", "", text
    if code < 300 and our_code < 300:
        if isinstance(body, dict) and isinstance(our_body, dict):
            yield from objects(body, our_body)
        elif body != our_body:
            yield "body", "", f"{body!r:.200} | {our_body!r:.200}"
        return
    expected, found = collections.Counter(causes(body)), collections.Counter(causes(our_body))
    lacking, surplus = list((expected - found).elements()), list((found - expected).elements())
    # The same field for the same reason: only the words differ.
    for one in list(lacking):
        twin = next((other for other in surplus if other[:2] == one[:2]), None)
        if twin:
            lacking.remove(one)
            surplus.remove(twin)
            name = "value" if without_value(one[2]) == without_value(twin[2]) else "message"
            yield name, f"{place(one[1])} {one[0]}", f"{one[2][:600]} | {twin[2][:600]}"
    for reason, field, message in lacking:
        yield "cause-lacks", f"{place(field)} {reason}", message[:600]
    for reason, field, message in surplus:
        yield "cause-has", f"{place(field)} {reason}", message[:600]
    if lacking or surplus:
        return
    if code != our_code:
        yield "code", f"{code} {our_code}", f"{text_of(body)} | {text_of(our_body)}"
    elif expected == found and without_ids(text_of(body)) != without_ids(text_of(our_body)):
        mine, others = problems(body), problems(our_body)
        in_order = causes(body) == causes(our_body) and not (mine and others and (mine <= others or others <= mine))
        yield "text" if in_order else "order", "", f"{text_of(body)} | {text_of(our_body)}"


def problems(body):
    """What is wrong with an applied configuration; upstream walks a map, and ends at the first field that is not in the schema."""
    message = without_ids(body.get("message", "")) if isinstance(body, dict) else ""
    return set(re.findall(r"(?:\): |\n  )(\.[^\n]*)", message)) if message.startswith("failed to create typed patch object") else set()


def text_of(body):
    if not isinstance(body, dict):
        return str(body)[:300]
    return re.sub(r'(?<= patch: )Invalid value: "(\\.|[^"\\])*"', "Invalid value: ...", without_ids(body.get("message", "")), flags=re.S)[:900]
