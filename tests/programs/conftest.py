"""Stock programs against one cluster of their own (`cargo xtask lab`), which lives as long as the run."""
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

import lab  # noqa: E402 - found through the line above
from machines import Machines  # noqa: E402


class Cluster(Machines):
    """One server; images come as archives, and tests talk to it from the hub, which has no part in it."""

    def image(self, archive):
        self.on("server-1", "rk", "image", "import", archive)

    def program_image(self, folder, name, programs):
        """Makes an image of programs that need nothing beside them, and brings it in."""
        root = folder / "root"
        for called, file in programs.items():
            (root / called).parent.mkdir(parents=True, exist_ok=True)
            lab.run("cp", file, root / called)
        lab.run(lab.ROOT / "installer/pack-image.sh", "--program", root, folder / "image.tar", name, f"/{next(iter(programs))}")
        self.image(folder / "image.tar")
        shutil.rmtree(folder)

    def rollout(self, namespace, what, timeout=120):
        """Waits until it runs; what its pods say is in the failure's text."""
        done = self.on("hub", "kubectl", "-n", namespace, "rollout", "status", what, f"--timeout={timeout}s", check=False)
        if done.returncode != 0:
            pods = self.kubectl("-n", namespace, "describe", "pods")
            logs = self.kubectl("-n", namespace, "logs", what, "--tail=30", "--all-pods", check=False)
            raise AssertionError(f"{what}: {done.stderr}\n{pods}\n{logs}")

    def apply(self, text, *words):
        return self.kubectl("apply", "-f", "-", *words, input=text)

    def refused(self, *words, input=None):
        """The error text of a kubectl call that must fail."""
        done = self.on("hub", "kubectl", *words, check=False, input=input)
        assert done.returncode != 0, f"kubectl {words} should fail, but said {done.stdout}"
        return done.stderr


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster("programs")
    archive = tmp_path_factory.mktemp("image") / "demo.tar"
    lab.run(lab.ROOT / "installer/demo-image.sh", archive, lab.DEMO_IMAGE)
    made.up(agents=0)
    try:
        made.image(archive)
        yield made
    finally:
        made.task("down")
