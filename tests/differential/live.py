"""The same two sides as real servers: kube-apiserver on etcd, and `rk server`, each in a lab of its own (see tests/conformance)."""
import pathlib
import shutil
import sys

import sides

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "conformance"))
import subject  # noqa: E402


def relay(lab):
    return sides.Program(*lab.command("hub", sys.executable, HERE / "relay.py", lab.kubeconfig))


# Parts that set defaults for others (classes of storage and of ingresses), or own what a test names.
PARTS = "dns,ingress,local-storage,metrics-server"
ADDRESSES, OURS = "--service-cluster-ip-range=10.96.0.0/16", "--service-cluster-ip-range=10.43.0.0/16"


# Of upstream's controllers, those that end a deletion: no other changes what a test made.
CONTROLLERS = "--controllers=garbage-collector-controller,namespace-controller"


class Upstream(subject.Upstream):
    """With those controllers that end a deletion. Services have the addresses that rk's have."""

    def up(self):
        shutil.rmtree(self.out / "etcd", ignore_errors=True)
        super().up()

    def start(self, machine, *words, log):
        told = (OURS if word == ADDRESSES else CONTROLLERS if str(word).startswith("--controllers=") else word for word in words)
        return super().start(machine, *told, log=log)


class Rk(subject.Lab):
    def __init__(self, xtask, name, out, binary):
        super().__init__(xtask, name, out)
        self.binary = binary
        self.kubeconfig = f"/run/rk-lab/{name}/kubeconfig.yaml"

    def up(self):
        self.task("up", "--name", self.name, "--servers", 1, "--agents", 0, "--binary", self.binary, f"--server-argument=--disable={PARTS}")


# rk is one process and has all controllers. The others lose their permissions: nobody but these may write, as at upstream's.
WRITERS = {"system:controller:generic-garbage-collector", "system:controller:namespace-controller"}
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


def settle(pair):
    """What pods need on both sides, no node that they run on, and nobody who changes what a test made."""
    for side in pair:
        for binding in side.call("GET", BINDINGS)[1]["items"]:
            name = binding["metadata"]["name"]
            if name.startswith(("system:controller:", "system:kube-scheduler", "system:volume-scheduler", "rk:local-storage", "rk:node-keys")) and name not in WRITERS:
                side.call("DELETE", f"{BINDINGS}/{name}")
        side.call("POST", "/api/v1/namespaces/default/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
        for node in side.call("GET", "/api/v1/nodes")[1]["items"]:
            side.call("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": True}}, {"Content-Type": "application/merge-patch+json"})


def labs(xtask, binary, bin, out, name, keep):
    out.mkdir(parents=True, exist_ok=True)
    both = [Upstream(xtask, f"{name}-up", out, bin), Rk(xtask, f"{name}-rk", out, binary)]
    for lab in both:
        if keep and pathlib.Path(f"/run/rk-lab/{lab.name}/lab.json").exists():
            lab.kubeconfig = lab.kubeconfig if isinstance(lab, Rk) else str(out / "kubeconfig.json")
        else:
            lab.up()
    return both
