"""Secrets are encrypted where they are stored, by keys of a file and by a KMS plugin, switched on, rotated and switched off under a running server."""
import base64
import contextlib
import json
import pathlib
import subprocess
import sys

import pytest

import lab
from machines import server_alone

TEXT = "nobody is to find this in a file"
KEYS = {"one": base64.b64encode(b"1" * 32).decode(), "two": base64.b64encode(b"2" * 32).decode()}


@pytest.fixture(scope="module")
def machines():
    with server_alone("encryption") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encryption")


@contextlib.contextmanager
def plugin(folder):
    """The folder is seen by all machines, and so is the socket in it."""
    (folder / "kms.sock").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("kms_plugin.py"), folder / "kms.sock", folder / "kms.json"])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def write(file, text):
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def configure(folder, *providers):
    rule = {"resources": ["secrets"], "providers": list(providers)}
    config = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [rule]}
    write(folder / "encryption.yaml", json.dumps(config))


def local(kind, name):
    return {kind: {"keys": [{"name": name, "secret": KEYS[name]}]}}


def kms(folder):
    return {"kms": {"apiVersion": "v2", "name": "plugin", "endpoint": f"unix://{folder}/kms.sock", "timeout": "3s"}}


IDENTITY = {"identity": {}}


def create(machines, name):
    machines.kubectl("create", "secret", "generic", name, f"--from-literal=text={TEXT}")


def read(machines, name):
    return base64.b64decode(machines.get("secret", name)["data"]["text"]).decode()


# Runs on the server's machine, which alone sees its disk.
READ = """
import json, pathlib, sqlite3
file = next(pathlib.Path("/var/lib/rk/server").rglob("state.db"))
database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
rows = database.execute("SELECT key, value FROM history AS h WHERE key GLOB '/registry/core/secrets/*' AND value IS NOT NULL"
                        " AND revision = (SELECT max(revision) FROM history WHERE key = h.key)")
print(json.dumps({key: value.hex() for key, value in rows}))
"""


def stored(machines):
    """All Secrets as the database of the server has them now, by name."""
    rows = json.loads(machines.on("server-1", sys.executable, "-c", READ).stdout)
    return {key.rpartition("/")[2]: bytes.fromhex(value) for key, value in rows.items()}


def all_begin(machines, prefix, holds=b""):
    values = stored(machines)
    return "before" in values and all(value.startswith(prefix) and holds in value for value in values.values())


def reloads(machines, status):
    name = "apiserver_encryption_config_controller_automatic_reloads_total"
    lines = machines.kubectl("get", "--raw", "/metrics").splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name) and f'status="{status}"' in line)


def test_keys_of_a_file_come_and_are_rotated(machines, folder):
    create(machines, "before")
    assert base64.b64encode(TEXT.encode()) in stored(machines)["before"], "nothing is encrypted unless it is asked for"
    configure(folder, local("secretbox", "one"), IDENTITY)
    machines.restart(**{"encryption-provider-config": str(folder / "encryption.yaml")})
    lab.eventually("what was there to be encrypted", lambda: all_begin(machines, b"k8s:enc:secretbox:v1:one:"))
    create(machines, "after")
    assert stored(machines)["after"].startswith(b"k8s:enc:secretbox:v1:one:")

    configure(folder, local("aesgcm", "two"), local("secretbox", "one"))
    lab.eventually("the other key", lambda: all_begin(machines, b"k8s:enc:aesgcm:v1:two:"))
    assert reloads(machines, "success") == 1
    configure(folder, local("aesgcm", "two"))
    lab.eventually("the first key to be forgotten", lambda: reloads(machines, "success") == 2)
    assert {read(machines, name) for name in ("before", "after")} == {TEXT}
    write(folder / "encryption.yaml", '{"kind": "Pod"}')
    lab.eventually("the bad file to be counted", lambda: reloads(machines, "failure") == 1)
    assert read(machines, "before") == TEXT and "the config stays as it was" in machines.log("server-1")


def test_a_plugin_holds_the_keys_and_rotates_them(machines, folder):
    keys = {"first": "11" * 32, "second": "22" * 32}
    write(folder / "kms.json", json.dumps({"write": "first", "keys": keys}))
    with plugin(folder):
        lab.eventually("the plugin's socket", (folder / "kms.sock").exists)
        configure(folder, kms(folder), local("aesgcm", "two"))
        lab.eventually("values under the plugin's key", lambda: all_begin(machines, b"k8s:enc:kms:v2:plugin:", b"first"))
        assert "[+]kms-providers ok" in machines.kubectl("get", "--raw", "/readyz?verbose")
        write(folder / "kms.json", json.dumps({"write": "second", "keys": keys}))
        lab.eventually("values under the plugin's other key", lambda: all_begin(machines, b"k8s:enc:kms:v2:plugin:", b"second"))
        write(folder / "kms.json", json.dumps({"write": "second", "keys": {"second": keys["second"]}}))
        assert {read(machines, name) for name in ("before", "after")} == {TEXT}


def test_without_its_plugin_a_server_reads_no_secret_and_says_why(machines, folder):
    machines.task("kill", "server-1")
    machines.task("start", "server-1")
    lab.eventually("the server to miss its plugin", lambda: machines.raw("/readyz?verbose", "[-]kms-providers failed"))
    assert "a kms provider is not healthy" in machines.log("server-1")
    refused = machines.on("hub", "kubectl", "get", "secret", "before", check=False)
    assert refused.returncode != 0 and TEXT not in refused.stdout
    # Everything else goes on.
    machines.kubectl("create", "configmap", "meanwhile")
    with plugin(folder):
        lab.eventually("the plugin to be heard again", lambda: read(machines, "before") == TEXT)
        lab.eventually("/readyz", lambda: machines.kubectl("get", "--raw", "/readyz") == "ok")
        configure(folder, IDENTITY, kms(folder))
        lab.eventually("values to be plain", lambda: all_begin(machines, b"{"))
    machines.restart()
    assert {read(machines, name) for name in ("before", "after")} == {TEXT}
