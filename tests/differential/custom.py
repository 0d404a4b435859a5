"""CustomResourceDefinitions with drawn schemas and rules, and custom objects that fit them or do not.

Definitions come in batches, half of them with nothing in them that is wrong for certain: each is asked for, and of those that both sides take
(and serve), objects are created, changed, patched and applied. Then the schema changes, and what is stored may no longer fit it.
"""
import copy
import json
import re
import time

import compare
import generate
import patches
from verbs import METADATA, TABLE, encoded

GROUP = "differential.example"
BATCH = 10
# Under a definition, before and after it changes.
OBJECTS = 20
PATHS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

RULES = {
    "string": ["self == 'a'", "self.size() < 5", "self.startsWith('a')", "self != oldSelf", "self == oldSelf", "self.matches('^[a-z]+$')", "isURL(self)",
               "quantity(self) > quantity('1')", "self.lowerAscii() == self", "format.dns1123Label().validate(self).hasValue()", "self", "self + 1 == 2"],
    "integer": ["self > 1", "self >= oldSelf", "self % 2 == 0", "self / 0 == 1", "double(self) < 2.5", "self in [1, 2, 3]", "self == 1.0", "self + 9223372036854775807 > 0"],
    "number": ["self > 0.5", "self == 1.5", "int(self) > 1"],
    "boolean": ["self", "!self || oldSelf", "self == true"],
    "array": ["self.size() > 1", "self.all(x, x != null)", "self.exists_one(x, x == self[0])", "self.map(x, x).size() == self.size()", "oldSelf.all(x, x in self)", "self[5] != null",
              "self.sum() > 1", "self.isSorted()"],
    "object": ["has(self.s)", "!has(self.s) || self.s != 'b'", "self.i < self.n", "has(oldSelf.s) && self.s == oldSelf.s", "self.nothing == 1", "self.m.all(k, self.m[k] != '')",
               "self.l.all(x, self.l.all(y, x == y))", "self.o.i > 1", "has(self.m) && 'k' in self.m", "self.metadata.name == 'one'", "self.x == 'a' || self.x == 1"],
}
# What no definition that is taken has.
WRONG = {"self", "self + 1 == 2", "self == 1.0", "self.nothing == 1", "self.x == 'a' || self.x == 1", "self.l.all(x, self.l.all(y, x == y))", "[", "nothing", "set", "Nothing", "x", "spec.i",
         "self.kind == 'x'", "self.spec.nothing == 1", ".status.x", ".spec.l", ".spec.o", "self.nothing", "5", "'a\\nb'", "a\nb"}
MESSAGES = ["'is ' + string(self)", "'static'", "self.nothing", "''", "5", "'a\\nb'"]
FORMATS = ["date-time", "uuid", "byte", "ipv4", "date", "duration", "nothing", "int32", "int64", "email", "hostname", "k8s-short-name"]


class Draw(generate.Chance):
    tame = False

    def some(self, *values):
        if self.tame:
            values = [value for value in values if not isinstance(value, str) or value not in WRONG] or values
        return super().some(*values)

    # Definitions

    def leaf(self, kind):
        schema = {"type": kind}
        if kind == "string":
            for key, values in (("maxLength", [0, 5, 300]), ("minLength", [1, 3]), ("pattern", ["^a", "[", "^[a-z]*$"]), ("enum", [["a", "b"], [], ["a", None]]), ("format", FORMATS)):
                if self.rarely(4):
                    schema[key] = self.some(*values)
        elif kind in ("integer", "number"):
            for key, values in (("minimum", [0, 1]), ("maximum", [5, 100]), ("exclusiveMinimum", [True]), ("multipleOf", [2, 0]), ("format", ["int32", "int64", "double"]), ("enum", [[1, 2]])):
                if self.rarely(4):
                    schema[key] = self.some(*values)
        return schema

    def schema(self, depth=2):
        kind = self.some("string", "string", "integer", "number", "boolean", "array", "object", "map", "any", "int-or-string") if depth else self.some("string", "integer", "boolean")
        if kind == "array":
            schema = {"type": "array", "items": self.schema(depth - 1)}
            if self.rarely(2):
                schema["maxItems"] = self.some(1, 3, 10)
            if self.rarely(4):
                schema["x-kubernetes-list-type"] = self.some("set", "atomic", "map", "nothing")
            if schema.get("x-kubernetes-list-type") == "map":
                schema["items"] = {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": self.leaf("integer")}}
                schema["x-kubernetes-list-map-keys"] = self.some(["k"], ["k"], [], ["v"], ["z"])
            if self.rarely(8):
                schema["uniqueItems"] = self.some(True, False)
        elif kind == "object":
            schema = self.object(depth - 1)
        elif kind == "map":
            schema = {"type": "object", "additionalProperties": self.some(self.leaf("string"), self.schema(depth - 1), True)}
            if self.rarely(3):
                schema["maxProperties"] = 2
            if self.rarely(4):
                schema["x-kubernetes-map-type"] = self.some("granular", "atomic")
        elif kind == "any":
            schema = {"x-kubernetes-preserve-unknown-fields": True}
            if self.rarely(2):
                schema["type"] = "object"
        elif kind == "int-or-string":
            schema = {"x-kubernetes-int-or-string": True}
        else:
            schema = self.leaf(kind)
        if self.rarely(8):
            schema["nullable"] = True
        if self.rarely(6):
            schema["default"] = self.value(schema) if self.tame or not self.rarely(3) else self.some(5, "x", {}, [])
        self.rule(schema)
        if not self.tame and self.rarely(40):
            schema.update(self.some({"type": "nothing"}, {"$ref": "#/x"}, {"anyOf": [{"type": "string"}]}, {"not": {"required": ["s"]}}, {"x-kubernetes-embedded-resource": True}, {"oneOf": []},
                                    {"anyOf": [{"minimum": 1}, {"maximum": 5}]}))
        return schema

    def rule(self, schema):
        kind = schema.get("type", "object")
        if self.rarely(4) and kind in RULES:
            rules = []
            for _ in range(self.some(1, 1, 2)):
                rule = {"rule": self.some(*RULES[kind])}
                if self.rarely(3):
                    rule["message"] = self.some("no", "", "a\nb")
                if self.rarely(4):
                    rule["messageExpression"] = self.some(*MESSAGES)
                if self.rarely(5):
                    rule["reason"] = self.some("FieldValueForbidden", "FieldValueInvalid", "Nothing")
                if self.rarely(6):
                    rule["fieldPath"] = self.some(".s", ".o.i", ".nothing", "s", ".l[0]")
                if self.rarely(6):
                    rule["optionalOldSelf"] = self.some(True, False)
                rules.append(rule)
            schema["x-kubernetes-validations"] = rules

    def object(self, depth):
        names = {"s": self.leaf("string"), "i": self.leaf("integer"), "n": self.leaf("number"), "b": self.leaf("boolean"),
                 "l": {"type": "array", "maxItems": 5, "items": self.leaf("string")}, "m": {"type": "object", "maxProperties": 5, "additionalProperties": self.leaf("string")}}
        if depth > 0:
            names.update({"o": self.object(depth - 1), "x": self.schema(depth), "y": self.schema(depth)})
        chosen = {name: names[name] for name in names if not self.rarely(3)}
        schema = {"type": "object", "properties": chosen}
        if self.rarely(4) and chosen:
            schema["required"] = [self.some(*chosen)]
        if self.rarely(12):
            schema["x-kubernetes-preserve-unknown-fields"] = True
        self.rule(schema)
        return schema

    def definition(self, number):
        self.tame = self.rarely(2)
        made = self.drawn(number)
        self.tame = False
        return made

    def changed(self, definition):
        """With another schema for the spec, of the same fields mostly."""
        made = copy.deepcopy(definition)
        self.tame = not self.rarely(4)
        properties = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        other = self.object(2)
        if self.rarely(4):
            properties["spec"] = other
        else:
            names = properties["spec"]["properties"]
            for name in names:
                if not self.rarely(3) and name in other["properties"]:
                    names[name] = other["properties"][name]
            for key in ("required", "x-kubernetes-validations"):
                if key in other:
                    properties["spec"][key] = other[key]
        self.tame = False
        return made

    def drawn(self, number):
        plural = f"things{number}"
        spec = self.object(2)
        root = {"type": "object", "properties": {"spec": spec, "status": {"type": "object", "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer"}, "conditions": {"type": "array", "items": {"type": "string"}}}}}}
        if self.rarely(4):
            root["x-kubernetes-validations"] = [{"rule": self.some("self.metadata.name != 'two'", "has(self.spec)", "self.spec.nothing == 1", "self.metadata.labels.a == 'b'", "self.kind == 'x'")}]
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}}
        if self.rarely(2):
            version["subresources"] = {"status": {}}
            if self.rarely(2):
                version["subresources"]["scale"] = {"specReplicasPath": self.some(".spec.i", ".spec.i", "spec.i", ".status.x"), "statusReplicasPath": ".status.replicas"}
        if self.rarely(3):
            version["additionalPrinterColumns"] = [{"name": "A", "type": self.some("string", "integer", "date", "nothing"), "jsonPath": self.some(".spec.s", ".spec.l", ".spec.o", ".metadata.creationTimestamp", ".spec.i", "x")}]
        if self.rarely(8):
            version["selectableFields"] = [{"jsonPath": self.some(".spec.s", ".spec.l", ".spec.nothing", ".metadata.name")}]
        made = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{GROUP}"},
                "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": plural, "singular": f"thing{number}", "kind": f"Thing{number}", "listKind": f"Thing{number}List"}, "versions": [version]}}
        if self.rarely(20):
            made["spec"]["names"]["shortNames"] = self.some(["t"], ["Bad Name"])
        if self.rarely(20):
            made["spec"]["conversion"] = self.some({"strategy": "None"}, {"strategy": "Nothing"}, {"strategy": "Webhook"})
        if self.rarely(40):
            made["spec"]["scope"] = "Nothing"
        return made

    # Objects

    def value(self, schema, depth=4):
        """A value that a schema takes, mostly."""
        if not isinstance(schema, dict) or depth == 0:
            return "x"
        if not self.tame and self.rarely(25):
            return self.some(None, 5, "x", [], {}, -1, True, 1.5, "a" * 310, 2**53)
        if schema.get("enum"):
            return self.some(*schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            made = {name: self.value(one, depth - 1) for name, one in schema.get("properties", {}).items() if not self.rarely(4) or name in schema.get("required", [])}
            more = schema.get("additionalProperties")
            if more is not None:
                made.update({key: self.value(more if isinstance(more, dict) else {}, depth - 1) for key in ("k", "a b")[:self.some(0, 1, 2)]})
            if self.rarely(15):
                made["unknown"] = self.some(1, {"a": 1})
            return made
        if kind == "array":
            return [self.value(schema.get("items", {}), depth - 1) for _ in range(self.some(0, 1, 2, 2, 4))]
        return {"string": self.some("a", "ab", "b", "2026-01-02", "10.0.0.1", ""), "integer": self.some(0, 1, 2, 4, 7), "number": self.some(1.5, 2, 0.5), "boolean": self.some(True, False)}.get(kind, self.some(1, "a", {"k": 1}))

    def instance(self, definition):
        version = definition["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        made = {"apiVersion": f"{GROUP}/v1", "kind": definition["spec"]["names"]["kind"], "metadata": {"name": self.some("one", "two", "three")}, "spec": self.value(schema["spec"])}
        if self.rarely(6):
            made["status"] = self.value(schema["status"])
        if self.rarely(6):
            made["metadata"]["labels"] = self.some({"a": "b"}, {"a": 5}, {"Bad Key": "x"})
        if self.rarely(30):
            made.update(self.some({"kind": "Other"}, {"apiVersion": "v1"}, {"unknown": 1}, {"spec": None}))
        return made

    def patch(self, definition):
        spec = self.instance(definition)["spec"]
        path, value = [], spec
        while isinstance(value, dict) and value and not self.rarely(3):
            key = self.some(*value)
            path, value = [*path, key], value[key]
        if self.rarely(2):
            made = self.some(None, value) if self.rarely(3) else value
            for key in reversed(["spec", *path]):
                made = {key: made}
            return "merge", made
        return "json", [{"op": self.some("add", "replace", "remove", "test"), "path": patches.pointer(["spec", *path]), "value": value}]

    def request(self, definition):
        # What fits is made more often than what does not; what is drawn of it may still be wrong for a rule.
        self.tame = not self.rarely(3)
        made = self.asked(definition)
        self.tame = False
        return made

    def asked(self, definition):
        collection = f"/apis/{GROUP}/v1/namespaces/default/{definition['spec']['names']['plural']}"
        body = self.instance(definition)
        url = f"{collection}/{body['metadata']['name']}"
        query = {"dryRun": "All"} if self.rarely(3) else {}
        if self.rarely(5):
            query["fieldValidation"] = self.some("Strict", "Warn", "Ignore")
        kind = self.chance.choices(["create", "update", "patch", "apply", "status", "scale", "get", "list", "delete"], [6, 3, 4, 4, 1, 1, 1, 1, 1])[0]
        if kind == "create":
            return kind, ("POST", collection, query, body, {})
        if kind == "update":
            return kind, ("PUT", url, query, body, {})
        if kind == "patch":
            media, body = self.patch(definition)
            return kind, ("PATCH", url, query, body, {"Content-Type": patches.MEDIA[media]})
        if kind == "apply":
            query = {**query, "fieldManager": self.some("m1", "m2"), "force": self.some("true", "false")}
            return kind, ("PATCH", url, query, body, {"Content-Type": patches.MEDIA["apply"]})
        if kind == "status":
            return kind, ("PATCH", f"{url}/status", query, {"status": self.value(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]), "spec": {"s": "zz"}},
                          {"Content-Type": patches.MEDIA["merge"]})
        if kind == "scale":
            return kind, self.some(("GET", f"{url}/scale", {}, None, {}), ("PATCH", f"{url}/scale", query, {"spec": {"replicas": self.some(1, 3, -1)}}, {"Content-Type": patches.MEDIA["merge"]}))
        accept = self.some({}, {"Accept": TABLE}, {"Accept": METADATA})
        if kind == "get":
            return kind, ("GET", url, {}, None, accept)
        if kind == "list":
            return kind, ("GET", collection, self.some({}, {"fieldSelector": self.some("spec.s=a", "metadata.name=one", "spec.x=1")}, {"labelSelector": "a=b"}), None, accept)
        return kind, ("DELETE", url, query, None, {})


def settled(pair, paths, answered, seconds=30):
    """The paths that both sides come to answer as wanted."""
    end, waiting, ready = time.monotonic() + seconds, list(paths), []
    while waiting and time.monotonic() < end:
        waiting_still = []
        for path in waiting:
            (ready if all(answered(side.call("GET", path)) for side in pair) else waiting_still).append(path)
        waiting = waiting_still
        if waiting:
            time.sleep(0.02)
    return [path for path in paths if path in ready]


def serves(answer, mark):
    """Whether a schema has the field `mark`, by what is said of an object with it."""
    return answer[0] != 404 and f'unknown field \\"{mark}\\"' not in json.dumps(answer[1])


def run(pair, options, found):
    draw, number = Draw(f"custom {options.seed}"), 0
    compare.managed_fields = True
    while number < options.requests:
        taken = {}
        for _ in range(BATCH):
            definition = draw.definition(number)
            number += 1
            answers = [side.call("POST", PATHS, definition) for side in pair]
            found.note("CustomResourceDefinition", "custom-define", json.dumps(definition)[:3000], without_status(compare.answers(*answers)))
            if all(code < 300 for code, _, _ in answers):
                taken[f"/apis/{GROUP}/v1/namespaces/default/{definition['spec']['names']['plural']}"] = definition
            else:
                for side, (code, _, _) in zip(pair, answers):
                    if code < 300:
                        side.call("DELETE", f"{PATHS}/{definition['metadata']['name']}")
        paths = settled(pair, taken, lambda answer: answer[0] == 200)
        for _ in range(2):
            for path in paths:
                number += objects(pair, draw, taken[path], found)
            for path in paths:
                number += 1
                redefine(pair, draw, taken, path, found, f"mark{number}")
        for definition in taken.values():
            for side in pair:
                side.call("DELETE", f"{PATHS}/{definition['metadata']['name']}")
    compare.managed_fields = False


def objects(pair, draw, definition, found):
    for _ in range(OBJECTS):
        kind, (method, url, query, body, headers) = draw.request(definition)
        answers = [side.call(method, url + encoded(query), body, {"User-Agent": "differential", **headers}) for side in pair]
        shown = f"{method} {url}{encoded(query)} {json.dumps(body)[:1500]} with {json.dumps(definition['spec']['versions'])[:3000]}"
        found.note("CustomObject", f"custom-{kind}", shown, patches.flat(compare.answers(*answers)))
    return OBJECTS


def redefine(pair, draw, taken, path, found, mark):
    definition = draw.changed(taken[path])
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][mark] = {"type": "string"}
    url, answers = f"{PATHS}/{definition['metadata']['name']}", []
    for side in pair:
        for _ in range(5):
            stored = side.call("GET", url)[1]
            answer = side.call("PUT", url, {**stored, "spec": {**stored["spec"], **definition["spec"]}})
            # Controllers may have written its status in between.
            if answer[0] != 409:
                break
        answers.append(answer)
    found.note("CustomResourceDefinition", "custom-redefine", json.dumps(definition)[:3000], without_status(compare.answers(*answers)))
    if not all(code < 300 for code, _, _ in answers):
        return
    taken[path] = definition
    # Both come to know of it by a watch.
    probe = {"apiVersion": f"{GROUP}/v1", "kind": definition["spec"]["names"]["kind"], "metadata": {"name": "probe"}, mark: "x"}
    for side in pair:
        for _ in range(1500):
            if serves(side.call("POST", f"{path}?dryRun=All&fieldValidation=Strict", probe), mark):
                break
            time.sleep(0.02)


def without_status(differences):
    """Controllers write it at their own pace, and managedFields with it. Where in a schema something differs does not matter."""
    for name, field, detail in differences:
        if not field.startswith((".status", ".metadata.managedFields", ".metadata.generation")):
            field = re.sub(r"(?<=openAPIV3Schema)\..*(?=\.\w+$)", "...", field) if name.startswith("object") else re.sub(r"(\.(properties\[\*\]|items|additionalProperties))+", ".*", field)
            yield name, field, detail
