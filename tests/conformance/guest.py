"""rk in virtual machines of their own kernel: Debian 12 with systemd and cgroup v2, their network cards ports of a lab's bridge."""
import io
import json
import pathlib
import subprocess
import tarfile
import time

import subject

HERE = pathlib.Path(__file__).parent
# Emulated, as it works on every host; a debug build needs its time, on a busy host more.
BOOT_SECONDS = 900
FIRST_ADDRESS = 200  # in the hub's network


class Guest(subject.Rk):
    """One server and `agents` more machines."""

    def __init__(self, xtask, name, out, binary, agents, cache, backend=None):
        super().__init__(xtask, name, out, binary, agents, cache / "images", backend=backend)
        self.files = cache / "guest"

    def up(self):
        subprocess.run([HERE / "guest/image.sh"], check=True)
        self.task("up", "--name", self.name, "--servers", 0, "--agents", 0)
        self.network = self.state()["network"]
        self.hub = f"10.99.{self.network}.1"
        self.start("hub", "python3", HERE / "images/registry.py", self.images, self.hub, subject.REGISTRY_PORT, log="registry.log")
        self.kubeconfig, self.nodes = str(self.out / "kubeconfig.yaml"), 1 + self.agents
        settings = {"network-backend": self.backend} if self.backend else {}
        serial = self.boot("guest", 0, "rk.service", {"etc/rk/config.yaml": settings})
        text = serial.read_text().replace("\r", "").replace("https://127.0.0.1:", f"https://{self.address(0)}:")
        pathlib.Path(self.kubeconfig).write_text(text)
        self.wait_for_node("guest")
        for number in range(1, 1 + self.agents):
            token = self.kubectl(self.binary, "token", "--kubeconfig", self.kubeconfig, "create").split()[-1]
            settings = {"server": [f"https://{self.address(0)}:6443"], "token": token}
            self.boot(f"guest-{number}", number, "rk-agent.service", {"etc/rk/agent.yaml": settings})
            self.wait_for_node(f"guest-{number}")

    def address(self, number):
        return f"10.99.{self.network}.{FIRST_ADDRESS + number}"

    def boot(self, name, number, unit, settings):
        """Starts a machine and waits until `unit` runs there; the file that holds what it says."""
        self.pack(self.out / f"{name}.tar", unit, settings)
        serial, tap = self.out / f"{name}.serial", f"guest{number}"
        machine = self.start(
            "hub", "sh", "-c", f"ip tuntap add dev {tap} mode tap && ip link set {tap} master br0 up && exec \"$@\"", "sh",
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", 2, "-m", 4096,
            "-display", "none", "-no-reboot", "-kernel", self.files / "vmlinuz", "-initrd", self.files / "initrd.img",
            "-append", f"root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0 lab.name={name} lab.unit={unit} "
            f"lab.address={self.address(number)} lab.gateway={self.hub}",
            "-drive", f"file={self.files}/disk.img,format=raw,if=virtio,snapshot=on,cache=unsafe",
            "-drive", f"file={self.out}/{name}.tar,format=raw,if=virtio,readonly=on",
            "-netdev", f"tap,id=lab,ifname={tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=lab,mac=52:54:00:99:{self.network:02x}:{number:02x}",
            "-serial", f"file:{self.out}/{name}.console.log", "-serial", f"file:{serial}", "-serial", f"file:{self.out}/{name}.log",
            log=f"{name}.qemu.log")
        end = time.monotonic() + BOOT_SECONDS
        while not (serial.exists() and "# end" in serial.read_text(errors="replace")):
            if machine.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"conformance: {name} does not come up, see {self.out}/{name}.console.log and {name}.qemu.log")
            time.sleep(0.5)
        return serial

    def wait_for_node(self, name):
        end = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self.kubectl("kubectl", "--kubeconfig", self.kubeconfig, "wait", "--for=condition=Ready", f"node/{name}", "--timeout=300s")
                return
            except subprocess.CalledProcessError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"conformance: node {name} is not ready: {error.stderr}") from error
                time.sleep(2)

    def pack(self, path, unit, settings):
        """What the machine takes from its second disk; see guest/image.sh."""
        mirrors = {"mirrors": {"registry.k8s.io": {"endpoint": [f"http://{self.hub}:{subject.REGISTRY_PORT}"]}}}
        with tarfile.open(path, "w") as tar:
            tar.add(HERE / "guest/setup.sh", "usr/local/sbin/setup")
            tar.add(self.binary, "usr/local/bin/rk")
            tar.add(HERE.parents[1] / "installer" / unit, f"etc/systemd/system/{unit}")
            for name, value in {"etc/rk/registries.yaml": mirrors, **settings}.items():
                text = json.dumps(value).encode()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text), 0o600
                tar.addfile(entry, io.BytesIO(text))

    def logs(self):
        names = ["guest", *[f"guest-{n}" for n in range(1, 1 + self.agents)]]
        return {name: self.out / f"{name}.log" for name in names}
