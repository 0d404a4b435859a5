"""Requests over all verbs, drawn by a seed: the two sides start empty, get the same requests and so should stay the same.

A request is made for each side of what that side last showed, since versions and ids are its own.
"""
import copy
import json

import yaml

import compare
import facts
import generate

NAMESPACE = "differential"
JSON, TABLE = "application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PATCHES = {"json": "application/json-patch+json", "merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json",
           "apply": "application/apply-patch+yaml"}
# Nothing but the API server acts on these.
OBJECTS = """
{apiVersion: v1, kind: ConfigMap, data: {a: "1", b: "2"}}
---
{apiVersion: v1, kind: Secret, stringData: {a: x}, type: Opaque}
---
{apiVersion: v1, kind: PodTemplate, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: nginx, ports: [{containerPort: 80}]}]}}}
---
{apiVersion: v1, kind: LimitRange, spec: {limits: [{type: PersistentVolumeClaim, max: {storage: 10Gi}}]}}
---
{apiVersion: v1, kind: Pod, spec: {schedulingGates: [{name: example.com/wait}], automountServiceAccountToken: false, containers: [{name: main, image: nginx}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {matchLabels: {a: b}}, ingress: [{ports: [{port: 80}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, spec: {holderIdentity: me, leaseDurationSeconds: 10}}
---
{apiVersion: apps/v1, kind: ControllerRevision, data: {a: 1}, revision: 1}
---
{apiVersion: batch/v1, kind: CronJob, spec: {suspend: true, schedule: "1 1 1 1 1", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: nginx}]}}}}}}
---
{apiVersion: storage.k8s.io/v1, kind: StorageClass, provisioner: example.com/none, parameters: {a: b}}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, value: 5}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, spec: {policyName: none, validationActions: [Audit]}}
"""
NAMES = ["one", "two", "three"]
LABELS = [None, {"app": "a"}, {"app": "b", "tier": "x"}]
SELECTORS = ["app=a", "app!=a", "app in (a,b)", "app notin (a)", "tier", "!tier", "app=a,tier=x", "app==a,", "=a", "app in (", "a b", "app=Bad_Value!", "x>1"]
FIELDS = ["metadata.name=one", "metadata.name!=one", "metadata.namespace=differential", "spec.nodeName=", "status.phase=Pending", "nothing=1", "type=Opaque", "a", "metadata.name in (a)"]


class Draw(generate.Chance):
    def __init__(self, seed):
        super().__init__(seed)
        self.objects = [(one, facts.resources()[one["apiVersion"], one["kind"]]) for one in yaml.safe_load_all(OBJECTS)]

    def object(self):
        body, resource = self.chance.choice(self.objects)
        body = copy.deepcopy(body)
        name = self.some(*NAMES)
        body["metadata"] = {"name": name, "labels": self.some(*LABELS)}
        if body["metadata"]["labels"] is None:
            del body["metadata"]["labels"]
        return body, resource, facts.path(resource, NAMESPACE, name), facts.path(resource, NAMESPACE)

    def query(self, **extra):
        query = {k: v for k, v in extra.items() if v is not None}
        if self.rarely():
            query["dryRun"] = self.some("All", "All", "Some")
        if self.rarely():
            query["fieldManager"] = self.some("m1", "m2", "x" * 129)
        if self.rarely():
            query["fieldValidation"] = self.some("Strict", "Warn", "Ignore", "None")
        return query

    def request(self):
        kind = self.chance.choices(["create", "update", "patch", "apply", "get", "list", "delete", "collection", "sub", "odd"],
                                   [18, 10, 16, 14, 8, 14, 8, 2, 8, 2])[0]
        return getattr(self, kind)()

    def create(self):
        body, _, _, collection = self.object()
        if self.rarely():
            body["unknown"] = {"a": 1}
        if self.rarely():
            body["metadata"] = {"generateName": self.some("x-", "Bad")} if self.rarely(3) else {"name": self.some("Bad Name", "")}
        if self.rarely(20):
            body["kind"] = "Nonsense"
        if self.rarely(20):
            body["metadata"]["namespace"] = "other"
        query = self.query()
        if "generateName" in body["metadata"]:
            query["dryRun"] = "All"
        return lambda _: ("POST", collection, query, body, {})

    def update(self):
        body, _, url, _ = self.object()
        body["metadata"]["annotations"] = {"n": str(self.chance.randrange(3))}
        version = self.some("kept", "kept", "none", "old", "word")
        query = self.query()

        def made(known):
            copied = copy.deepcopy(body)
            last = known.get(url)
            if version == "kept" and last:
                copied = {**copy.deepcopy(last), "metadata": {**last["metadata"], **body["metadata"]}}
            elif version in ("old", "word"):
                copied["metadata"]["resourceVersion"] = "1" if version == "old" else "abc"
            return "PUT", url, query, copied, {}
        return made

    def patch(self):
        _, resource, url, _ = self.object()
        kind = self.some("json", "merge", "strategic")
        if kind == "json":
            body = self.some([{"op": "add", "path": "/metadata/annotations", "value": {"p": "1"}}], [{"op": "remove", "path": "/metadata/nothing"}],
                             [{"op": "test", "path": "/metadata/name", "value": "one"}], [{"op": "replace", "path": "/metadata/name", "value": "x"}],
                             [{"op": "add", "path": "/metadata/labels/z", "value": 5}], {"not": "a list"}, [{"op": "nothing", "path": "/a"}],
                             [{"op": "copy", "from": "/metadata/name", "path": "/metadata/annotations/x"}])
        else:
            body = self.some({"metadata": {"annotations": {"p": self.some("1", "2", None)}}}, {"metadata": {"labels": {"app": self.some("a", "b", None)}}},
                             {"metadata": {"labels": None}}, {"metadata": {"name": "x"}}, {"metadata": {"labels": {"a": 5}}}, {"unknown": 1},
                             {"metadata": {"resourceVersion": "1"}}, {"metadata": {"finalizers": ["example.com/f"]}} if self.rarely() else {}, "word",
                             {"metadata": {"annotations": {"$patch": "delete"}}}, {"kind": "Other"}, {"metadata": {"labels": {"Bad Key": "x"}}})
        query = self.query()
        return lambda _: ("PATCH", url, query, body, {"Content-Type": PATCHES[kind]})

    def apply(self):
        body, _, url, _ = self.object()
        body["metadata"]["annotations"] = self.some({"a": "1"}, {"a": "2"}, {"b": "1"}, {})
        if self.rarely():
            body["metadata"]["managedFields"] = []
        if self.rarely():
            body["unknown"] = 1
        if self.rarely(20):
            body["metadata"]["name"] = "other"
        if self.rarely(20):
            del body["kind"]
        query = self.query(force=self.some(None, "true", "false"), fieldManager=self.some("m1", "m2", "m3", None if self.rarely() else "m1"))
        return lambda _: ("PATCH", url, query, body, {"Content-Type": PATCHES["apply"]})

    def get(self):
        _, _, url, _ = self.object()
        query = {"resourceVersion": self.some("0", "1", "abc", "999999999")} if self.rarely(3) else {}
        if query.get("resourceVersion") == "999999999":
            query = {}
        return lambda _: ("GET", url, query, None, {"Accept": self.some(JSON, TABLE, METADATA, "text/plain", "application/yaml") if self.rarely(2) else JSON})

    def list(self):
        _, _, _, url = self.object()
        query = {}
        if self.rarely(2):
            query["labelSelector"] = self.some(*SELECTORS)
        if self.rarely(3):
            query["fieldSelector"] = self.some(*FIELDS)
        if self.rarely(3):
            query["limit"] = self.some("1", "2", "-1", "x")
        if self.rarely(3):
            query["resourceVersion"] = self.some("0", "1", "abc", "")
        if self.rarely(4):
            query["resourceVersionMatch"] = self.some("Exact", "NotOlderThan", "Nothing")
        if self.rarely(12):
            query["continue"] = self.some("abc", "")
        accept = self.some(JSON, JSON, TABLE, METADATA.replace("PartialObjectMetadata", "PartialObjectMetadataList"))
        return lambda _: ("GET", url, query, None, {"Accept": accept})

    def delete(self):
        _, _, url, _ = self.object()
        body = self.some(None, None, {}, {"gracePeriodSeconds": self.some(0, 5, -1)}, {"propagationPolicy": self.some("Background", "Foreground", "Orphan", "Nothing")},
                         {"orphanDependents": True, "propagationPolicy": "Orphan"}, {"preconditions": {"uid": "nothing"}},
                         {"preconditions": {"resourceVersion": "1"}}, {"dryRun": ["All"]}, {"dryRun": ["Some"]}, {"kind": "Other", "apiVersion": "v1"})
        if body and body.get("propagationPolicy") == "Foreground":
            body = {"propagationPolicy": "Background"}
        query = self.some({}, {}, {"gracePeriodSeconds": "0"}, {"gracePeriodSeconds": "x"}, {"propagationPolicy": "Background"}, {"dryRun": "All"})
        return lambda _: ("DELETE", url, query, body, {})

    def collection(self):
        _, _, _, url = self.object()
        query = {"labelSelector": self.some(*SELECTORS)}
        if self.rarely(2):
            query["dryRun"] = "All"
        return lambda _: ("DELETE", url, query, None, {})

    def sub(self):
        name = self.some(*NAMES)
        pod = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        ephemeral = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}
        condition = {"status": {"conditions": [{"type": "Example", "status": self.some("True", "Maybe")}], "phase": self.some("Pending", "Odd")}}
        resize = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": self.some("10m", "-1")}}}]}}
        method, path, body, media = self.some(
            ("GET", f"{pod}/status", None, JSON), ("PATCH", f"{pod}/status", condition, PATCHES["strategic"]), ("PATCH", f"{pod}/ephemeralcontainers", ephemeral, PATCHES["strategic"]),
            ("PATCH", f"{pod}/resize", resize, PATCHES["strategic"]), ("GET", f"{pod}/nothing", None, JSON), ("GET", f"{pod}/log", None, JSON),
            ("POST", f"{pod}/binding", {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": self.some("Node", "Other"), "name": ""}}, JSON),
            ("POST", f"{pod}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": self.some(name, "other")}, "deleteOptions": {"dryRun": ["All"]}}, JSON),
            ("GET", f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{name}/status", None, JSON),
            ("PATCH", f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{name}/status", {"status": {"lastScheduleTime": "2026-01-02T03:04:05Z"}, "spec": {"suspend": False}}, PATCHES["merge"]),
            ("PATCH", f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses/{name}/status", {"status": {"loadBalancer": {"ingress": [{"ip": self.some("10.0.0.1", "x")}]}}}, PATCHES["merge"]),
            ("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/none/token", {"spec": {"audiences": ["a"]}}, JSON),
            ("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}/scale", None, JSON))
        return lambda _: (method, path, {}, body, {"Content-Type": media})

    def odd(self):
        _, _, url, collection = self.object()
        return lambda _: self.some(("GET", "/apis/nothing/v1/things", {}, None, {}), ("POST", collection, {}, "{not json", {}), ("POST", collection, {}, "", {}),
                                   ("POST", collection, {}, "a: b", {"Content-Type": "text/plain"}), ("PUT", collection, {}, {}, {}), ("POST", url, {}, {}, {}),
                                   ("PATCH", url, {}, {}, {"Content-Type": JSON}), ("GET", f"{url}/x/y", {}, None, {}), ("GET", "/api/v1/nothing", {}, None, {}))


def encoded(query):
    from urllib.parse import urlencode
    return "?" + urlencode(query) if query else ""


def run(pair, options, found):
    """Both sides get `options.requests` requests."""
    for side in pair:
        side.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        side.call("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    draw, known = Draw(f"verbs {options.seed}"), [{} for _ in pair]
    compare.managed_fields = True
    for number in range(options.requests):
        make = draw.request()
        state = draw.chance.getstate()
        answers, shown = [], None
        for side, last in zip(pair, known):
            draw.chance.setstate(state)
            method, path, query, body, headers = make(last)
            shown = f"{number}: {method} {path}{encoded(query)} {headers.get('Content-Type', '')} {json.dumps(body)[:300]}"
            answer = side.call(method, path + encoded(query), body, {"User-Agent": "differential", **headers})
            if answer[0] in (200, 201) and isinstance(answer[1], dict) and answer[1].get("kind") not in ("Status", "Table", None):
                name = answer[1].get("metadata", {}).get("name")
                if name and "dryRun" not in query:
                    last[path if path.endswith(f"/{name}") else f"{path}/{name}"] = answer[1]
            answers.append(answer)
        kind = path.removesuffix("/").split("/")
        kind = next((part for part in kind if part in PLURALS), "other")
        found.note(kind, f"{method.lower()}", shown, compare.answers(*answers))


PLURALS = {resource.plural for resource in facts.resources().values()} - {"namespaces"}
