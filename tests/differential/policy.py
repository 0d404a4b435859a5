"""Admission policies with drawn expressions, and objects that they let pass, change or refuse; in one namespace.

Policies come in batches: each selects the objects with a label of its own, and the last of a batch, once it holds, says that all do.
"""
import json
import re
import time

import compare
import generate
import patches
from verbs import encoded

GROUP = "/apis/admissionregistration.k8s.io/v1"
NAMESPACE = "differential-policy"
BATCH = 24
OBJECTS = 10
EXPRESSIONS = [
    "true", "false", "object.data.size() > 1", "'a' in object.data", "object.data.a == 'x'", "object.data.missing == 'x'", "object.metadata.name.startsWith('o')", "oldObject == null",
    "request.operation == 'CREATE'", "request.kind.kind == 'ConfigMap'", "has(object.metadata.labels) && object.metadata.labels.tier == '1'", "namespaceObject.metadata.name == 'differential-policy'",
    "authorizer.group('').resource('pods').namespace('default').check('create').allowed()", "object.data.a.matches('^[a-z]+$')", "quantity(object.data.q).isGreaterThan(quantity('1Gi'))",
    "object.data.all(k, object.data[k] != '')", "object.data.exists(k, k == 'b')", "1 / 0 == 1", "object.?data.?zz.orValue('x') == 'x'", "object == oldObject", "object.spec.replicas > 1",
    "isIP(object.data.a) || ip(object.data.a).family() == 4", "variables.v == 'x'", "variables.n > 1", "params.data.limit == 'x'", "params == null", "request.dryRun == true",
    "object.data.map(k, k).join(',').size() < 20", "url(object.data.a).getHost() == 'h'", "semver(object.data.a).major() == 1", "request.userInfo.groups.exists(g, g == 'system:masters')",
    "object.", "undefined > 1", "'text'", "1 + 'a' == 2", "object.data.a.nothing()", "has(object)", "object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')",
    "authorizer.requestResource.check('create').allowed()", "string(object.data.size()) + 'x' == '2x'", "object.immutable", "cel.bind(x, object.data, x.size() < 3)",
]
MESSAGES = ["'got ' + object.data.a", "'static'", "object.data.missing", "''", "5", "'a\\nb'", "string(object.data.size())"]
MUTATIONS = [
    ("ApplyConfiguration", "Object{metadata: Object.metadata{labels: {'added': 'yes'}}}"), ("ApplyConfiguration", "Object{data: {'z': object.metadata.name}}"), ("ApplyConfiguration", "Object{}"),
    ("ApplyConfiguration", "Object{data: {'z': object.data.missing}}"), ("ApplyConfiguration", "Object{nothing: 1}"), ("ApplyConfiguration", "Object{metadata: Object.metadata{name: 'other'}}"),
    ("ApplyConfiguration", "Object{data: {'n': 5}}"), ("ApplyConfiguration", "1"), ("ApplyConfiguration", "Object{immutable: true}"),
    ("JSONPatch", "[JSONPatch{op: 'add', path: '/data/z', value: 'y'}]"), ("JSONPatch", "[JSONPatch{op: 'remove', path: '/data/a'}]"), ("JSONPatch", "[JSONPatch{op: 'replace', path: '/data/zz/y', value: 1}]"),
    ("JSONPatch", "[JSONPatch{op: 'test', path: '/data/a', value: 'x'}, JSONPatch{op: 'add', path: '/data/t', value: 't'}]"), ("JSONPatch", "[]"), ("JSONPatch", "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"),
    ("JSONPatch", "[JSONPatch{op: 'copy', from: '/data/a', path: '/data/c'}]"), ("JSONPatch", "[JSONPatch{op: 'nothing', path: '/a'}]"), ("JSONPatch", "'x'"), ("JSONPatch", "[JSONPatch{op: 'add', path: '/data/z', value: object.data.missing}]"),
    ("JSONPatch", "has(object.data.a) ? [JSONPatch{op: 'add', path: '/data/has', value: 'a'}] : []"), ("Nothing", "1"),
]


class Draw(generate.Chance):
    def expression(self):
        """One of the list, or two of them put together."""
        one, other = self.some(*EXPRESSIONS), self.some(*EXPRESSIONS)
        return self.some(one, one, one, one, f"({one}) && ({other})", f"({one}) || ({other})", f"!({one})", f"({one}) ? ({other}) : false", f"[{one}, {other}].exists(x, x)",
                         f"variables.v == 'x' || ({one})") if not self.rarely(3) else one

    def selector(self, key, value):
        return self.some({"matchLabels": {key: value}}, {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}, {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]},
                         {"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]})

    def mutation(self):
        media, expression = self.some(*MUTATIONS)
        return {"patchType": media, "applyConfiguration" if media == "ApplyConfiguration" else "jsonPatch": {"expression": expression}}

    def policy(self, number):
        mutates = self.rarely(3)
        kind = "MutatingAdmissionPolicy" if mutates else "ValidatingAdmissionPolicy"
        rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": self.some(["CREATE"], ["CREATE", "UPDATE"], ["CREATE", "UPDATE"], ["UPDATE"], ["*"]), "resources": ["configmaps"]}]
        if mutates and rules[0]["operations"] == ["*"] and self.rarely(2):
            rules[0]["operations"] = ["CREATE"]
        spec = {"failurePolicy": self.some("Fail", "Fail", "Ignore"), "matchConstraints": {"resourceRules": rules, "objectSelector": {"matchLabels": {"policy": f"p{number}"}}}}
        constraints = spec["matchConstraints"]
        if self.rarely(6):
            constraints["matchPolicy"] = self.some("Exact", "Equivalent")
        if self.rarely(8):
            constraints["namespaceSelector"] = self.selector("kubernetes.io/metadata.name", NAMESPACE)
        if self.rarely(8):
            constraints["excludeResourceRules"] = [{**rules[0], "operations": self.some(["CREATE"], ["UPDATE"]), **self.some({}, {"resourceNames": ["one"]})}]
        if self.rarely(8):
            rules[0]["resourceNames"] = self.some(["one"], ["other", "none"])
        if self.rarely(4):
            spec["matchConditions"] = [{"name": "first", "expression": self.expression()}]
        if self.rarely(3):
            spec["variables"] = [{"name": "v", "expression": self.some("object.data.a", "'x'", "object.data.missing")}, {"name": "n", "expression": self.some("object.data.size()", "1", "variables.v.size()")}]
        has_params = self.rarely(4)
        if has_params:
            spec["paramKind"] = {"apiVersion": "v1", "kind": "ConfigMap"}
        if mutates:
            spec["reinvocationPolicy"] = self.some("Never", "IfNeeded")
            spec["mutations"] = [self.mutation() for _ in range(self.some(1, 1, 2))]
        else:
            spec["validations"] = []
            for _ in range(self.some(1, 1, 2)):
                one = {"expression": self.expression()}
                if self.rarely(3):
                    one["message"] = self.some("no", "", "a\nb")
                if self.rarely(3):
                    one["messageExpression"] = self.some(*MESSAGES)
                if self.rarely(4):
                    one["reason"] = self.some("Forbidden", "Invalid", "Unauthorized", "RequestEntityTooLarge", "Nothing")
                spec["validations"].append(one)
            if self.rarely(8):
                spec["auditAnnotations"] = [{"key": self.some("k", "Bad Key!"), "valueExpression": self.some("'v'", "object.data.a", "5")}]
        binding = {"policyName": f"p{number}"}
        if not mutates:
            binding["validationActions"] = self.some(["Deny"], ["Deny"], ["Deny"], ["Warn"], ["Audit"], ["Deny", "Audit"], ["Warn", "Audit"], ["Deny", "Warn"])
        if self.rarely(5):
            binding["matchResources"] = self.some({"objectSelector": self.selector("tier", "1")}, {"namespaceSelector": self.selector("kubernetes.io/metadata.name", NAMESPACE)},
                                                  {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*/*"]}]},
                                                  {"excludeResourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"], "resourceNames": ["one"]}]})
        if has_params:
            binding["paramRef"] = self.some({"name": "params", "namespace": NAMESPACE, "parameterNotFoundAction": "Deny"}, {"name": "none", "parameterNotFoundAction": "Deny"},
                                            {"name": "none", "parameterNotFoundAction": "Allow"}, {"selector": {"matchLabels": {"is": "params"}}, "parameterNotFoundAction": "Deny"})
        api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": f"p{number}"}}
        return {**api, "kind": kind, "spec": spec}, {**api, "kind": f"{kind}Binding", "spec": binding}

    def object(self, number):
        data = {key: self.some("x", "abc", "1.2.3", "10.0.0.1", "2Gi", "http://h/") for key in ("a", "b", "q", "zz")[:self.some(1, 2, 3, 4)]}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.some("one", "other"), "labels": {"policy": f"p{number}", "tier": self.some("1", "2")}}, "data": self.some(data, data, data, {})}


def plural(kind):
    return f"{GROUP}/{kind.lower()[:-1] + 'ies' if kind.endswith('y') else kind.lower() + 's'}"


def configmaps(name=""):
    return f"/api/v1/namespaces/{NAMESPACE}/configmaps" + (f"/{name}" if name else "")


def markers(pair, number, live):
    """Policies made last; waits until each side follows both."""
    made = []
    for kind, spec in (("ValidatingAdmissionPolicy", {"validations": [{"expression": "false"}]}),
                       ("MutatingAdmissionPolicy", {"reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/marked', value: 'yes'}]"}}]})):
        name = f"marker-{kind.lower()[:4]}-{number}"
        spec = {**spec, "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                                                                     "objectSelector": {"matchLabels": {"marker": name}}}}
        api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
        binding = {"policyName": name, **({"validationActions": ["Deny"]} if kind.startswith("V") else {})}
        for side in pair:
            side.call("POST", plural(kind), {**api, "kind": kind, "spec": spec})
            side.call("POST", plural(kind + "Binding"), {**api, "kind": kind + "Binding", "spec": binding})
        made += [(kind, name), (kind + "Binding", name)]
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "labels": {"marker": name}}, "data": {"a": "x"}}
        end = time.monotonic() + 30
        for side in pair:
            while time.monotonic() < end:
                code, body, _ = side.call("POST", configmaps() + "?dryRun=All", probe)
                if code >= 400 or "marked" in body.get("data", {}):
                    break
                time.sleep(0.2 if live else 0.005)
    return made


def run(pair, options, found):
    for side in pair:
        side.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        side.call("POST", configmaps(), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "params", "labels": {"is": "params"}}, "data": {"limit": "x"}})
    draw, number = Draw(f"policy {options.seed}"), 0
    compare.managed_fields = True
    while number < options.requests:
        taken, made = [], []
        for _ in range(BATCH):
            number += 1
            policy, binding = draw.policy(number)
            refused = False
            for one in (policy, binding):
                answers = [side.call("POST", plural(one["kind"]), one) for side in pair]
                found.note(one["kind"], "policy-define", json.dumps(one)[:2000], compare.answers(*answers))
                refused |= any(code >= 300 for code, _, _ in answers)
                made.append((one["kind"], one["metadata"]["name"]))
                if refused:
                    break
            if not refused:
                taken.append((number, policy, binding))
        made += markers(pair, number, options.live)
        for which, policy, binding in taken:
            for _ in range(OBJECTS):
                number += 1
                body = draw.object(which)
                name, query = body["metadata"]["name"], {"dryRun": "All"} if draw.rarely(2) else {}
                method, url = draw.some(("POST", configmaps()), ("POST", configmaps()), ("PUT", configmaps(name)), ("DELETE", configmaps(name)))
                answers = [side.call(method, url + encoded(query), None if method == "DELETE" else body, {"User-Agent": "differential"}) for side in pair]
                shown = f"{method} {url}{encoded(query)} {json.dumps(body)} with {json.dumps(policy['spec'])} {json.dumps(binding['spec'])}"
                # Of several that refuse, upstream names the first in a map.
                refused_by = [re.findall(r"'p\d+'", compare.text_of(body))[:1] for code, body, _ in answers if code >= 400]
                differences = [("order", "", "")] if len(refused_by) == 2 and refused_by[0] != refused_by[1] else compare.answers(*answers)
                found.note(policy["kind"], f"policy-{method.lower()}", shown, patches.flat(differences))
        for kind, name in made:
            for side in pair:
                side.call("DELETE", f"{plural(kind)}/{name}")
    compare.managed_fields = False
