"""A cluster of several machines, each a set of namespaces on this host."""
import contextlib
import json
import os
import pathlib

from lab import eventually, run


@contextlib.contextmanager
def server_alone(name):
    """A lab of one server, for a fixture."""
    made = Machines(name)
    try:
        made.up(agents=0)
        yield made
    finally:
        made.task("down")


class Machines:
    """A lab by name, through `cargo xtask lab`."""

    def __init__(self, name):
        self.name, self.xtask = name, os.environ["XTASK"]

    def up(self, agents=2, servers=1, *more):
        self.task("up", "--servers", str(servers), "--agents", str(agents), "--binary", os.environ["RK_BINARY"], *more)

    def task(self, *words, **options):
        return run(self.xtask, "lab", words[0], "--name", self.name, *words[1:], timeout=600, **options)

    def on(self, machine, *words, check=True, input=None):
        return run(self.xtask, "lab", "exec", "--name", self.name, machine, "--", *words, check=check, input=input)

    def kubectl(self, *words, check=True, input=None):
        return self.on("hub", "kubectl", *words, check=check, input=input).stdout

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def state(self):
        return json.loads(pathlib.Path(f"/run/rk-lab/{self.name}/lab.json").read_text())

    def address(self, machine):
        return next(m["address"] for m in self.state()["machines"] if m["name"] == machine)

    def log(self, machine):
        return (pathlib.Path(self.state()["data"]) / machine / "rk.log").read_text()

    def restart(self, **settings):
        """With these as the configuration file of the first server."""
        self.task("kill", "server-1")
        self.on("server-1", "mkdir", "-p", "/etc/rk")
        self.on("server-1", "tee", "/etc/rk/config.yaml", input=json.dumps(settings))
        self.task("start", "server-1")
        eventually("/readyz", lambda: self.kubectl("get", "--raw", "/readyz") == "ok")

    def raw(self, path, wanted):
        """The answer, an error's too, if it has the wanted text."""
        done = self.on("hub", "kubectl", "get", "--raw", path, check=False)
        text = done.stdout + done.stderr
        return text if wanted in text else None

    def ready(self, node):
        conditions = self.get("node", node)["status"]["conditions"]
        return next(c["status"] for c in conditions if c["type"] == "Ready") == "True"

    def token(self, *more):
        return self.on("server-1", "rk", "token", "create", *more).stdout.split()[-1]

    def join_fails(self, machine, *words):
        """What `rk agent join` says on a machine whose agent is stopped; it must fail soon."""
        done = self.on(machine, "timeout", "30", "rk", "agent", "join", *words, check=False)
        assert done.returncode not in (0, 124), done.stdout + done.stderr
        return done.stderr.strip().splitlines()[-1]
