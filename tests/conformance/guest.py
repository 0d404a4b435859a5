"""rk in a virtual machine of its own kernel: Debian 12 with systemd and cgroup v2, its network card a port of a lab's bridge."""
import io
import pathlib
import subprocess
import tarfile
import time

import subject

HERE = pathlib.Path(__file__).parent
# Emulated, as it works on every host; a debug build needs its time, on a busy host more.
BOOT_SECONDS = 900
TAP = ("ip tuntap add dev guest mode tap && ip link set guest master br0 up && exec \"$@\"",)


class Guest(subject.Rk):
    def __init__(self, xtask, name, out, binary, cache):
        super().__init__(xtask, name, out, binary, 0, cache / "images")
        self.files = cache / "guest"

    def up(self):
        subprocess.run([HERE / "guest/image.sh"], check=True)
        self.task("up", "--name", self.name, "--servers", 0, "--agents", 0)
        network = self.state()["network"]
        hub, address = f"10.99.{network}.1", f"10.99.{network}.200"
        self.start("hub", "python3", HERE / "images/registry.py", self.images, hub, subject.REGISTRY_PORT, log="registry.log")
        self.pack(self.out / "files.tar", hub)
        serial = self.out / "kubeconfig.serial"
        machine = self.start(
            "hub", "sh", "-c", *TAP, "sh", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", 2, "-m", 4096,
            "-display", "none", "-no-reboot", "-kernel", self.files / "vmlinuz", "-initrd", self.files / "initrd.img",
            "-append", f"root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0 lab.address={address} lab.gateway={hub}",
            "-drive", f"file={self.files}/disk.img,format=raw,if=virtio,snapshot=on,cache=unsafe",
            "-drive", f"file={self.out}/files.tar,format=raw,if=virtio,readonly=on",
            "-netdev", "tap,id=lab,ifname=guest,script=no,downscript=no", "-device", "virtio-net-pci,netdev=lab",
            "-serial", f"file:{self.out}/console.log", "-serial", f"file:{serial}", "-serial", f"file:{self.out}/rk.log", log="qemu.log")
        end = time.monotonic() + BOOT_SECONDS
        while not (serial.exists() and "# end" in serial.read_text(errors="replace")):
            if machine.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"conformance: the guest does not come up, see {self.out}/console.log and qemu.log")
            time.sleep(0.5)
        self.kubeconfig, self.nodes = str(self.out / "kubeconfig.yaml"), 1
        text = serial.read_text().replace("\r", "").replace("https://127.0.0.1:", f"https://{address}:")
        pathlib.Path(self.kubeconfig).write_text(text)
        while True:
            try:
                self.kubectl("kubectl", "--kubeconfig", self.kubeconfig, "wait", "--for=condition=Ready", "node/guest", "--timeout=300s")
                return
            except subprocess.CalledProcessError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"conformance: the guest's node is not ready: {error.stderr}") from error
                time.sleep(2)

    def pack(self, path, hub):
        """What setup.sh takes from the second disk."""
        with tarfile.open(path, "w") as tar:
            tar.add(self.binary, "usr/local/bin/rk")
            tar.add(HERE.parents[1] / "installer/rk.service", "etc/systemd/system/rk.service")
            text = f"mirrors:\n  registry.k8s.io:\n    endpoint: [\"http://{hub}:{subject.REGISTRY_PORT}\"]\n".encode()
            entry = tarfile.TarInfo("etc/rk/registries.yaml")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))

    def logs(self):
        return {"guest": self.out / "rk.log"}
