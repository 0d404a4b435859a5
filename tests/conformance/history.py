"""The ratchet: passes in a row per test, kept in the cache; three of them put a test into passing.txt."""
import json
import time

import choose

IN_A_ROW = 3


class History:
    def __init__(self, path):
        self.path = path
        self.runs = json.loads(path.read_text()) if path.exists() else {}

    def seconds(self):
        """How long each test took when it last passed."""
        last = {}
        for key, runs in self.runs.items():
            for run in runs:
                if run["passed"]:
                    last[key] = run["seconds"]
        return last

    def add(self, results):
        for r in results:
            runs = self.runs.setdefault(choose.key(r.name), [])
            runs.append({"at": int(time.time()), "passed": r.passed and not r.flaky, "seconds": round(r.seconds, 1), "commit": choose.git("rev-parse", "--short", "HEAD")})
            del runs[:-10]
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.runs, indent=0, sort_keys=True))
        draft.rename(self.path)

    def steady(self, name):
        runs = self.runs.get(choose.key(name), [])[-IN_A_ROW:]
        return len(runs) == IN_A_ROW and all(run["passed"] for run in runs)

    def promote(self):
        """Lists the tests that passed three times in a row; returns the new ones."""
        listed = set(choose.passing())
        new = [name for name in choose.everything() if name not in listed and self.steady(name)]
        if new:
            (choose.HERE / "passing.txt").write_text("".join(name + "\n" for name in sorted(listed | set(new))))
        return new
