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


class Upstream(subject.Upstream):
    """Without controllers: nobody changes what a test made."""

    def up(self):
        shutil.rmtree(self.out / "etcd", ignore_errors=True)
        super().up()

    def start(self, machine, *words, log):
        return None if "controller-manager" in log else super().start(machine, *words, log=log)


class Rk(subject.Lab):
    def __init__(self, xtask, name, out, binary):
        super().__init__(xtask, name, out)
        self.binary = binary
        self.kubeconfig = f"/run/rk-lab/{name}/kubeconfig.yaml"

    def up(self):
        self.task("up", "--name", self.name, "--servers", 1, "--agents", 0, "--binary", self.binary)


def labs(xtask, binary, bin, out, name, keep):
    out.mkdir(parents=True, exist_ok=True)
    both = [Upstream(xtask, f"{name}-up", out, bin), Rk(xtask, f"{name}-rk", out, binary)]
    for lab in both:
        if keep and pathlib.Path(f"/run/rk-lab/{lab.name}/lab.json").exists():
            lab.kubeconfig = lab.kubeconfig if isinstance(lab, Rk) else str(out / "kubeconfig.json")
        else:
            lab.up()
    return both
