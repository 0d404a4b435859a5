"""Which tests run: names, lists, a slice that rotates with the commit, and what changed code asks for."""
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).parent
SLICE_SECONDS = 4 * 60  # of tests; the lab and its images come on top
UNKNOWN_SECONDS = 17  # the mean over the whole suite on upstream


def read(path):
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def key(name):
    """A name without its labels, whose order differs between the suite's lists and its reports; still unique."""
    return " ".join(re.sub(r"\[(?!sig-)[^\]]*\]", "", name.removeprefix("[It] ")).split())


def everything():
    return read(HERE / "tests.txt")


def passing():
    path = HERE / "passing.txt"
    return read(path) if path.exists() else []


def serial(name):
    return "[Serial]" in name


def focus(names):
    """Ginkgo's regular expressions for exactly these tests."""
    def one(name):
        stem = re.sub(r'( \[[^\]]*\])+$', "", name)
        return "suite " + re.escape(stem) + r"( \[[^\]]*\])*$"
    return [one(name) for name in names]


def cost(names, seconds, jobs):
    """How long these tests take together."""
    times = [(seconds.get(key(name), UNKNOWN_SECONDS), serial(name)) for name in names]
    side_by_side = [t for t, alone in times if not alone]
    return max([sum(side_by_side) / jobs * 1.2, *side_by_side, 0]) + sum(t for t, alone in times if alone)


def rotated(names, commit, budget, seconds, jobs, first=()):
    """`first`, then as many of `names` as the budget allows, from a place that the commit's hash decides."""
    chosen = list(dict.fromkeys(first))
    start = int(commit[:8], 16) % len(names) if names else 0
    for name in names[start:] + names[:start]:
        if name not in chosen and cost([*chosen, name], seconds, jobs) <= budget:
            chosen.append(name)
    return chosen


def areas():
    """(prefix of a path, expression over names of tests)"""
    return [tuple(line.split(maxsplit=1)) for line in read(HERE / "areas.txt")]


def touched(names, paths):
    wanted = [re.compile(expression) for prefix, expression in areas() if any(p.startswith(prefix) for p in paths)]
    return [name for name in names if any(w.search(name) for w in wanted)]


def git(*words):
    done = subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def slice_of(names, seconds, jobs, budget=SLICE_SECONDS):
    commit = git("rev-parse", "HEAD") or "0"
    changed = git("diff", "--name-only", "HEAD~1").splitlines()
    return rotated(names, commit, budget, seconds, jobs, first=touched(names, changed))
