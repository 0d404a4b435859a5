"""Programs built from Go modules, kept in the cache by name and version."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

import turns  # noqa: E402 - found through the line above

CACHE = pathlib.Path(os.environ.get("RK_CACHE", os.path.expanduser("~/.cache/rk"))) / "programs"
SEARCH = os.pathsep.join([os.environ["PATH"], "/usr/local/go/bin", str(CACHE.parent / "conformance/go/bin")])


class NotBuilt(Exception):
    """Why there is no such program."""


def take(turn):
    """What is not there yet is built on its day only."""
    if not any(turns.is_due(name, turns.DEAR) for name in turn):
        raise NotBuilt(f"new programs take turns, and today's is that of {turns.of_the_day(turns.DEAR)}; RK_TEST_ALL=1 builds all")


def go(folder, *words, **environment):
    """What Go says on standard output."""
    found = shutil.which("go", path=SEARCH)
    if not found:
        raise NotBuilt("there is no Go")
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", **environment}
    done = subprocess.run(["nice", found, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        raise NotBuilt(done.stderr.strip()[-500:])
    return done.stdout


def go_build(folder, path, package=".", flags="-s -w"):
    """Builds one program of the module in `folder`."""
    made = path.with_name(f".{path.name}")
    go(folder, "build", "-ldflags", flags, "-o", str(made), package)
    made.rename(path)


def program(package, version, name, turn):
    """The path of the program; built at the first call, which takes minutes."""
    path = CACHE / f"{name}-{version}"
    if path.exists():
        return path
    take(turn)
    # From a module of our own: `go install` refuses modules that replace others.
    with tempfile.TemporaryDirectory() as folder:
        go(folder, "mod", "init", "programs")
        go(folder, "get", f"{package}@{version}")
        go_build(folder, path, package)
    return path


def source(module, version):
    """The folder with the files of a module: its manifests and charts."""
    return pathlib.Path(json.loads(go(CACHE, "mod", "download", "-json", f"{module}@{version}"))["Dir"])


def module(folder, name, turn):
    """The program of a module of this tree; built anew when a file of it has changed."""
    files = sorted(p for p in folder.rglob("*") if p.name in ("go.mod", "go.sum") or p.suffix == ".go")
    digest = hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()[:12]
    path = CACHE / f"{name}-{digest}"
    if not path.exists():
        take(turn)
        for older in CACHE.glob(f"{name}-*"):
            older.unlink()
        go_build(folder, path)
    return path


def node_package(name):
    """The folder where the package can be imported; its newest version that this Node.js runs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise NotBuilt("there is no Node.js")
    major = int(subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout[1:].split(".")[0])
    version = "2.0.1" if major >= 22 else "1.4.0"
    path = CACHE / f"node-{name.rsplit('/', 1)[-1]}-{version}"
    if not path.exists():
        made = path.with_name(f".{path.name}")
        made.mkdir(parents=True, exist_ok=True)
        words = ("install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", made, f"{name}@{version}")
        done = subprocess.run([npm, *words], capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise NotBuilt(done.stderr.strip()[-500:])
        made.rename(path)
    return path


def of_kubernetes(name, version):
    """A program of Kubernetes itself, as tests/conformance builds it."""
    suite = CACHE.parent / "conformance/bin" / name
    path = CACHE / f"{name}-{version}"
    if not path.exists() and not suite.exists():
        stamp = "k8s.io/component-base/version"
        flags = f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={version.split('.')[1]}"
        go_build(pathlib.Path(__file__).resolve().parents[1] / "conformance/suite", path, f"k8s.io/kubernetes/cmd/{name}", flags)
    return path if path.exists() else suite


def cargo(folder, name, turn):
    """The program of a cargo package of this tree, whose dependencies are not ours."""
    found = shutil.which("cargo", path=os.pathsep.join([os.environ["PATH"], os.path.expanduser("~/.cargo/bin"), "/usr/lib/rust-web/bin", "/usr/share/cargo-web/bin"]))
    if not found:
        raise NotBuilt("there is no cargo")
    target = CACHE / "cargo"
    path = target / "x86_64-unknown-linux-gnu/debug" / name
    if not path.exists():
        take(turn)
    words = ("build", "--locked", "--target", "x86_64-unknown-linux-gnu")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_INCREMENTAL": "0"}
    done = subprocess.run(["nice", found, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        raise NotBuilt(done.stderr.strip()[-500:])
    return path
