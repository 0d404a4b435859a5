"""Images from a real registry (with and without login) and from archives; pulls that fail say why."""
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest
import lab
from lab import ROOT, eventually, get, kubectl, remove_namespace, run

NS = "image-test"


def push(archive, registry, repository, tag, login=None):
    """Pushes an OCI archive with curl, as any registry client would."""
    work = pathlib.Path(archive).with_suffix(".layout")
    with tarfile.open(archive) as tar:
        tar.extractall(work)
    user = ["-u", login] if login else []
    import json
    manifest_digest = json.loads((work / "index.json").read_text())["manifests"][0]["digest"]
    manifest = (work / "blobs/sha256" / manifest_digest[7:]).read_bytes()
    described = json.loads(manifest)
    for blob in [described["config"], *described["layers"]]:
        headers = run("curl", "-fsS", *user, "-X", "POST", "-D", "-", "-o", "/dev/null", f"http://{registry}/v2/{repository}/blobs/uploads/").stdout
        location = next(line.split(" ", 1)[1].strip() for line in headers.splitlines() if line.lower().startswith("location:"))
        run("curl", "-fsS", *user, "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary",
            f"@{work}/blobs/sha256/{blob['digest'][7:]}", f"{location}&digest={blob['digest']}")
    run("curl", "-fsS", *user, "-X", "PUT", "-H", f"Content-Type: {described['mediaType']}", "--data-binary",
        f"@{work}/blobs/sha256/{manifest_digest[7:]}", f"http://{registry}/v2/{repository}/manifests/{tag}")
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """An open registry on 5001, one with a login on 5002."""
    folder = tmp_path_factory.mktemp("registry")
    run("htpasswd", "-Bbc", folder / "htpasswd", "user", "secret")
    servers = []
    for port, auth in ((5001, ""), (5002, f"auth:\n  htpasswd: {{realm: test, path: {folder}/htpasswd}}\n")):
        config = folder / f"{port}.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/{port}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}")
        servers.append(subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for port in (5001, 5002):
        eventually("the registry", lambda: run("curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/v2/", check=False).returncode == 0, 30)
    archive = folder / "demo.tar"
    run(ROOT / "installer/demo-image.sh", archive, "test/demo:1")
    push(archive, "127.0.0.1:5001", "test/demo", "1")
    push(archive, "127.0.0.1:5002", "test/demo", "1", login="user:secret")
    kubectl("create", "namespace", NS)
    yield folder
    remove_namespace(NS)
    for server in servers:
        server.kill()
        server.wait()


def start(name, image, **spec):
    import json
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS},
           "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image, "command": ["sleep", "100000"], "imagePullPolicy": "Always"}], **spec}}
    kubectl("apply", "-f", "-", input=json.dumps(pod))


def messages(name):
    return " | ".join(e["message"] for e in get("events", "-n", NS)["items"] if e["involvedObject"]["name"] == name)


def test_pull_from_a_registry(registries):
    start("open", "127.0.0.1:5001/test/demo:1")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/open", "--timeout=60s")
    eventually("the event", lambda: "Successfully pulled image" in messages("open"))
    assert get("pod", "open", "-n", NS)["status"]["containerStatuses"][0]["imageID"].startswith("127.0.0.1:5001/test/demo@sha256:")


def test_pull_with_a_login(registries):
    start("refused", "127.0.0.1:5002/test/demo:1")
    eventually("a refusal", lambda: "no basic auth credentials" in messages("refused") or "pull access denied" in messages("refused"))
    kubectl("-n", NS, "create", "secret", "docker-registry", "login", "--docker-server=127.0.0.1:5002", "--docker-username=user", "--docker-password=secret")
    start("allowed", "127.0.0.1:5002/test/demo:1", imagePullSecrets=[{"name": "login"}])
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/allowed", "--timeout=60s")


def test_missing_image_and_dead_registry(registries):
    start("missing", "127.0.0.1:5001/test/nonesuch:1")
    eventually("not found", lambda: "not found" in messages("missing"))
    eventually("back-off", lambda: get("pod", "missing", "-n", NS)["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff"))
    start("dead", "127.0.0.1:5999/x:1")
    eventually("unreachable", lambda: "failed to reach registry 127.0.0.1:5999" in messages("dead"))


def test_rk_image_commands(registries):
    assert "sha256:" in run("rk", "image", "pull", "127.0.0.1:5001/test/demo:1").stdout
    assert "127.0.0.1:5001/test/demo:1" in run("rk", "image", "list").stdout
    assert run("rk", "image", "pull", "127.0.0.1:5002/test/demo:1", check=False).returncode == 1
    run("rk", "image", "pull", "127.0.0.1:5002/test/demo:1", "--credentials", "user:secret")
    run("rk", "image", "remove", "127.0.0.1:5002/test/demo:1")
    assert "127.0.0.1:5002/test/demo:1" not in run("rk", "image", "list").stdout
    bad = run("rk", "image", "pull", "Not/A/Name", check=False)
    assert bad.returncode == 64 and "Not/A/Name" in bad.stderr


def test_foreign_and_corrupt_archives_are_refused(registries):
    damaged = registries / "damaged.tar"
    data = bytearray((registries / "demo.tar").read_bytes())
    middle = len(data) // 2
    data[middle:middle + 64] = os.urandom(64)
    damaged.write_bytes(data)
    done = run("rk", "image", "import", damaged, check=False)
    assert done.returncode == 1 and "corrupt image" in done.stderr, done.stderr


def test_a_python_application_on_debian(registries, tmp_path_factory):
    """A Debian root with Python and a small web application, pushed, pulled, and answering through a Service."""
    cached = lab.CACHE / "python-app.tar"
    if not cached.exists():
        work = tmp_path_factory.mktemp("python")
        make_python_image(work, cached)
    push(cached, "127.0.0.1:5001", "test/python-app", "1")
    kubectl("-n", NS, "create", "deployment", "python-app", "--image=127.0.0.1:5001/test/python-app:1", "--port=8000")
    kubectl("-n", NS, "expose", "deployment", "python-app")
    kubectl("-n", NS, "rollout", "status", "deployment/python-app", "--timeout=180s")
    address = get("service", "python-app", "-n", NS)["spec"]["clusterIP"]
    eventually("the application", lambda: "Python 3" in run("curl", "-fsS", f"http://{address}:8000/").stdout)
    # The same image from its archive, under a name that no registry is asked for.
    assert "docker.io/test/python-app:1" in run("rk", "image", "import", cached).stdout
    kubectl("-n", NS, "run", "from-archive", "--image=test/python-app:1", "--image-pull-policy=Never", "--restart=Never", "--command", "--",
            "/usr/bin/python3.11", "-c", "import json; print('imported', json.dumps([1]))")
    eventually("its end", lambda: get("pod", "from-archive", "-n", NS)["status"]["phase"] == "Succeeded")
    assert kubectl("-n", NS, "logs", "from-archive").strip() == "imported [1]"


def make_python_image(work, out):
    """Takes python3-minimal and what it links from this machine's Debian packages."""
    root = work / "root"
    root.mkdir()
    wanted = ["python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "zlib1g", "libexpat1"]
    subprocess.run(["apt-get", "download", "-qq", *wanted], cwd=work, check=True, stdout=subprocess.DEVNULL)
    for package in work.glob("*.deb"):
        run("dpkg-deb", "-x", package, root)
    (root / "app.py").write_text(
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = ('Python ' + sys.version).encode()\n"
        "        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n"
        "    def log_message(self, *a): pass\n"
        "http.server.ThreadingHTTPServer(('', 8000), H).serve_forever()\n")
    run(ROOT / "installer/pack-image.sh", root, out, "test/python-app:1", "/usr/bin/python3.11", "/app.py")
