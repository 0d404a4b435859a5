"""Server-side apply by several managers, drawn by a seed: what they own, share, take from each other and give up.

Each object lives for some steps: configurations that three managers apply (each mostly what it applied last, changed a little), to the object
or its status, and updates and merge patches of others in between. Then it is made anew.
"""
import copy

import compare
import facts
import generate
import patches
import sides

# An object lives for so many steps.
LIFE = 14


class Draw(patches.Draw):
    def __init__(self, subject, seed):
        super().__init__(subject, seed)
        self.fields = facts.types()[subject.resource.type]
        self.begin()

    def begin(self):
        """What each manager applied last, of the object and of its status."""
        self.last = {}

    def part(self, value, kind, field=None, one_in=5):
        """Some of a value; items of lists keep their keys."""
        if isinstance(value, list) and kind.startswith("[]"):
            return [self.part(item, kind[2:], field, one_in) for item in value if len(value) == 1 or not self.rarely(one_in)]
        if not isinstance(value, dict):
            return value
        if kind.startswith("{}"):
            return {key: item for key, item in value.items() if not self.rarely(one_in)}
        fields = facts.types().get(kind)
        if not fields:
            return value
        keys = field.map_keys if field else []
        return {name: self.part(item, fields[name].type if name in fields else "", fields.get(name), one_in)
                for name, item in value.items() if name in keys or not self.rarely(one_in)}

    def named(self, **more):
        base = self.subject.base
        metadata = {name: base["metadata"][name] for name in ("name", "namespace") if name in base["metadata"]}
        return {"apiVersion": base["apiVersion"], "kind": base["kind"], "metadata": metadata, **more}

    def whole(self):
        base = self.subject.base
        made = self.named(**{key: self.part(value, self.fields[key].type, self.fields[key]) for key, value in base.items()
                             if key in self.fields and key not in ("metadata", "status", "apiVersion", "kind")})
        for key in ("labels", "annotations", "finalizers"):
            if self.rarely(3) and (key != "finalizers" or base["kind"] not in (*patches.KEPT, "CustomResourceDefinition")):
                made["metadata"][key] = ["example.com/f"] if key == "finalizers" else {self.some("a", "b", "c"): self.some("1", "2")}
        return made

    def status(self):
        kind = self.fields["status"].type
        return self.named(status=self.part(generate.sample(kind, self.some(1, 2, 3)), kind))

    def configuration(self, manager, which):
        last = self.last.get((manager, which))
        made = copy.deepcopy(last) if last and not self.rarely(3) else self.whole() if which == "" else self.status()
        if last and self.rarely(3):
            kind = self.subject.resource.type
            made = {key: value if key in ("apiVersion", "kind", "metadata") or key not in self.fields else self.part(value, self.fields[key].type, self.fields[key])
                    for key, value in made.items()}
        for _ in range(self.some(0, 1, 1, 2)):
            changes = self.subject.changes if which == "" else [c for c in self.status_changes(made)]
            if changes:
                made = self.with_change(made, *self.chance.choice(changes))
        if self.rarely(40) and isinstance(made.get("metadata"), dict):
            made["metadata"]["managedFields"] = self.some([], [{"manager": "m1"}], None)
        return made

    def status_changes(self, made):
        return [(("status", *path), new) for path, new in generate.changes(made.get("status") or {}, self.fields["status"].type) if path]

    def with_change(self, made, path, new):
        if path[:2] == ("metadata", "name") or path[:2] == ("metadata", "namespace"):
            return made
        try:
            return generate.changed(made, path, new)
        except (KeyError, IndexError, TypeError):
            return made

    def query(self, manager):
        query = {"fieldManager": manager}
        if self.rarely(5):
            query["dryRun"] = "All"
        if self.rarely(10):
            query["fieldValidation"] = self.some("Strict", "Warn", "Ignore")
        return query

    def step(self):
        """Method, path, query, body (or what makes it of the object there is), content type."""
        subject = self.subject
        # What a server keeps there itself would be in the way.
        has_status = subject.base["kind"] not in ("CustomResourceDefinition", "APIService") and "status" in subject.resource.subresources and "status" in self.fields
        kind = self.chance.choices(["apply", "status", "update", "patch", "status-patch", "broken"], [60, 14 if has_status else 0, 9, 9, 5 if has_status else 0, 3])[0]
        if kind in ("apply", "status"):
            manager, which = self.some("m1", "m2", "m3"), "/status" if kind == "status" else ""
            body = self.configuration(manager, which)
            query = self.query(manager)
            force = self.some(None, None, "true", "true", "false") if not self.rarely(20) else "x"
            if force:
                query["force"] = force
            if "dryRun" not in query:
                self.last[manager, which] = body
            return "PATCH", subject.url + which, query, lambda _: body, patches.MEDIA["apply"]
        if kind == "update":
            path, new = self.change()
            return "PUT", subject.url, self.query(self.some("u1", "u2")), lambda now: self.with_change(now, path, new), "application/json"
        if kind == "patch":
            body = self.merge()
            return "PATCH", subject.url, self.query(self.some("u1", "p1")), lambda _: body, patches.MEDIA["merge"]
        if kind == "status-patch":
            body = {"status": self.status()["status"]}
            return "PATCH", subject.url + "/status", self.query(self.some("u1", "p1")), lambda _: body, patches.MEDIA["merge"]
        base, query = subject.base, self.query(self.some("m1", "m2"))
        if self.rarely(3):
            query.pop("fieldManager")
        body = self.some("word", 5, None, [], {}, {"kind": base["kind"]}, {"apiVersion": base["apiVersion"]}, self.named(), {**self.named(), "kind": "Other"},
                         {**self.named(), "apiVersion": "v9"}, {**self.named(), "metadata": {"name": "other"}}, {**self.named(), "metadata": {}}, {**self.named(), "unknown": 1})
        return "PATCH", subject.url, query, lambda _: body, patches.MEDIA["apply"]


def run(pair, bases, options, found):
    """`options.requests` steps, over all bases in turn."""
    from verbs import encoded
    compare.managed_fields = True
    # rk's server keeps an APIService up to date, with versions of its own.
    subjects = patches.made(pair, [base for base in bases if base["kind"] != "APIService"])
    draws = [Draw(subject, f"apply {options.seed} {subject.base['kind']} {subject.name()}") for subject in subjects]
    for number in range(options.requests):
        # Some steps of one object after the other, so that few requests still make a history.
        draw = draws[number // LIFE % len(draws)]
        method, path, query, body, media = draw.step()
        answers = []
        for side in pair:
            now = side.call("GET", draw.subject.url)[1] if method == "PUT" else None
            if now and draw.subject.base["kind"] in patches.WRITTEN_BESIDE:
                now.get("metadata", {}).pop("resourceVersion", None)
            text = sides.text(body(now))
            answers.append(side.call(method, path + encoded(query), text, {"Content-Type": media, "User-Agent": "differential"}))
        name = "apply" if media == patches.MEDIA["apply"] else f"apply-{method.lower()}"
        if draw.subject.base["kind"] in patches.WRITTEN_BESIDE:
            answers = [patches.without_status(answer) for answer in answers]
        found.note(draw.subject.base["kind"], name, f"{number}: {method} {path}{encoded(query)} {text[:1500]}", patches.flat(compare.answers(*answers)))
        if number % LIFE == LIFE - 1 or (answers[0][0] < 300) != (answers[1][0] < 300):
            patches.again(pair, draw.subject)
            draw.begin()
    for subject in subjects:
        patches.remove(pair, subject)
    compare.managed_fields = False
