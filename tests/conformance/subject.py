"""What is tested: rk in a lab of several machines, or upstream's own control plane in the hub of an empty lab."""
import json
import os
import pathlib
import subprocess
import time

HERE = pathlib.Path(__file__).parent
REGISTRY_PORT = 5000


def kubeconfig_text(server, ca, cert, key):
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "c", "user": {"client-certificate": str(cert), "client-key": str(key)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]})


def front_proxy_flags(pki):
    """What kube-apiserver wants for aggregated servers."""
    return [
        f"--requestheader-client-ca-file={pki}/front-proxy.crt",
        f"--proxy-client-cert-file={pki}/proxy-client.crt", f"--proxy-client-key-file={pki}/proxy-client.key",
        "--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User"]


class Lab:
    """A lab by name, through `xtask lab`; started processes end with it."""

    def __init__(self, xtask, name, out):
        self.xtask, self.name, self.out = str(xtask), name, out

    def task(self, *words, check=True):
        return subprocess.run([self.xtask, "lab", *map(str, words)], check=check, stdin=subprocess.DEVNULL)

    def state(self):
        return json.loads(pathlib.Path(f"/run/rk-lab/{self.name}/lab.json").read_text())

    def command(self, machine, *words):
        return [self.xtask, "lab", "exec", "--name", self.name, machine, "--", *map(str, words)]

    def start(self, machine, *words, log):
        """Starts a command in the background."""
        with open(self.out / log, "ab") as file:
            return subprocess.Popen(self.command(machine, *words), stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def run(self, machine, *words, quiet=False):
        output = subprocess.DEVNULL if quiet else None
        return subprocess.run(self.command(machine, *words), check=True, stdin=subprocess.DEVNULL, stdout=output)

    def kubectl(self, kubectl, *words):
        return subprocess.run(self.command("hub", kubectl, *words), check=True, capture_output=True, text=True).stdout

    def down(self):
        self.task("down", "--name", self.name, check=False)

    def logs(self):
        state = self.state()
        return {m["name"]: pathlib.Path(state["data"]) / m["name"] / "rk.log" for m in state["machines"]}


class Rk(Lab):
    def __init__(self, xtask, name, out, binary, agents, images, etcd=None, backend=None):
        super().__init__(xtask, name, out)
        self.binary, self.agents, self.images, self.etcd, self.backend = binary, agents, images, etcd, backend

    def up(self):
        more = ["--server-argument=--datastore-endpoint=http://127.0.0.1:2379"] if self.etcd else []
        more += [f"--server-argument=--network-backend={self.backend}"] if self.backend else []
        up = subprocess.Popen(list(map(str, [
            self.xtask, "lab", "up", "--name", self.name, "--servers", 1, "--agents", self.agents, "--binary", self.binary,
            "--mirror", f"registry.k8s.io={REGISTRY_PORT}", *more])), stdin=subprocess.DEVNULL)
        if self.etcd:
            self.start_etcd(up)
        if up.wait():
            raise SystemExit("conformance: the lab does not come up")
        state = self.state()
        hub = f"10.99.{state['network']}.1"
        self.start("hub", "python3", HERE / "images/registry.py", self.images, hub, REGISTRY_PORT, log="registry.log")
        tars = sorted(map(str, self.images.glob("*.tar")))
        imports = [subprocess.Popen(self.command(m["name"], "rk", "image", "import", *tars), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                   for m in state["machines"]]
        if any([one.wait() for one in imports]):
            raise SystemExit("conformance: importing the images failed")
        self.nodes = len(state["machines"])
        self.kubeconfig = f"/run/rk-lab/{self.name}/kubeconfig.yaml"

    def start_etcd(self, up):
        """As soon as there is a machine for it; rk waits."""
        while up.poll() is None:
            if subprocess.run(self.command("server-1", "true"), capture_output=True).returncode == 0:
                self.start("server-1", self.etcd, "--data-dir", self.out / "etcd", log="etcd.log")
                return
            time.sleep(0.2)


def manager_flags(kubeconfig, pki):
    """Of a kube-controller-manager that is alone."""
    return [
        f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}", "--leader-elect=false",
        "--use-service-account-credentials=true", f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"]


class Upstream(Lab):
    """etcd, kube-apiserver and kube-controller-manager of the release that the suite is of; its two nodes are only objects."""

    def __init__(self, xtask, name, out, bin):
        super().__init__(xtask, name, out)
        self.bin = bin

    def up(self, etcd=("--unsafe-no-fsync",), manager=()):
        """`etcd` and `manager`: more flags of the store and of the controller manager."""
        self.task("up", "--name", self.name, "--servers", 0, "--agents", 0)
        pki, self.nodes = self.out / "pki", 2
        subprocess.run([HERE / "upstream-pki.sh", pki], check=True)
        self.kubeconfig = str(self.out / "kubeconfig.json")
        pathlib.Path(self.kubeconfig).write_text(kubeconfig_text("https://127.0.0.1:6443", pki / "ca.crt", pki / "admin.crt", pki / "admin.key"))
        self.start("hub", self.bin / "etcd", "--data-dir", self.out / "etcd", *etcd, log="etcd.log")
        self.start(
            "hub", self.bin / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0",
            f"--advertise-address=10.99.{self.state()['network']}.1", "--allow-privileged=true", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key", "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local", f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key", *front_proxy_flags(pki), log="kube-apiserver.log")
        for _ in range(600):
            if subprocess.run(self.command("hub", self.bin / "kubectl", "--kubeconfig", self.kubeconfig, "get", "--raw", "/readyz"),
                              capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        else:
            raise SystemExit(f"conformance: upstream's API server does not answer, see {self.out}/kube-apiserver.log")
        # Nobody speaks for the nodes, so nobody may judge them.
        self.start(
            "hub", self.bin / "kube-controller-manager", *manager_flags(self.kubeconfig, pki),
            "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller", *manager, log="kube-controller-manager.log")
        for number in (1, 2):
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"}}
            ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Always"}],
                                "addresses": [{"type": "InternalIP", "address": f"10.99.255.{number}"}]}}
            subprocess.run(self.command("hub", self.bin / "kubectl", "--kubeconfig", self.kubeconfig, "create", "-f", "-"),
                           input=json.dumps(node), text=True, check=True, stdout=subprocess.DEVNULL)
            self.run("hub", self.bin / "kubectl", "--kubeconfig", self.kubeconfig, "patch", "node", f"node-{number}", "--subresource=status",
                     "--type=merge", "-p", json.dumps(ready), quiet=True)
            # Admission marks each new node as not ready; the controller that would take the mark off is among those left out.
            self.run("hub", self.bin / "kubectl", "--kubeconfig", self.kubeconfig, "patch", "node", f"node-{number}", "--type=merge",
                     "-p", '{"spec": {"taints": null}}', quiet=True)

    def logs(self):
        return {name: self.out / f"{name}.log" for name in ("kube-apiserver", "kube-controller-manager")}
