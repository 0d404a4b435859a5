"""Programs built from Go modules, kept in the cache by name and version."""
import os
import pathlib
import shutil
import subprocess

CACHE = pathlib.Path(os.environ.get("RK_CACHE", os.path.expanduser("~/.cache/rk"))) / "programs"
SEARCH = os.pathsep.join([os.environ["PATH"], "/usr/local/go/bin", str(CACHE.parent / "conformance/go/bin")])


class NotBuilt(Exception):
    """Why there is no such program."""


def program(package, version, name=None):
    """The path of the program; built at the first call, which takes minutes."""
    name = name or package.rsplit("/", 1)[-1]
    path = CACHE / f"{name}-{version}"
    if path.exists():
        return path
    go = shutil.which("go", path=SEARCH)
    if not go:
        raise NotBuilt("there is no Go")
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f".{name}-{version}"
    environment = {**os.environ, "GOBIN": str(made), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    done = subprocess.run(
        ["nice", go, "install", "-ldflags=-s -w", f"{package}@{version}"], env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        raise NotBuilt(done.stderr.strip()[-500:])
    (made / package.rsplit("/", 1)[-1]).rename(path)
    shutil.rmtree(made)
    return path
