"""What the processes of a cluster use: memory as the kernel shares it out, time on a core, bytes sent to the disk."""
import os
import pathlib
import re

TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    def __init__(self, pid, role, pod):
        self.pid, self.role, self.pod = pid, role, pod  # role: server, shim, program

    def read(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}").read_text()

    def pss(self):
        """Bytes of memory; what several processes share counts for each by its part."""
        return int(re.search(r"^Pss:\s+(\d+) kB", self.read("smaps_rollup"), re.M)[1]) * 1024

    def rss(self):
        return int(re.search(r"^Rss:\s+(\d+) kB", self.read("smaps_rollup"), re.M)[1]) * 1024

    def cpu(self):
        """Seconds on a core."""
        fields = self.read("stat").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def written(self):
        return int(re.search(r"^write_bytes: (\d+)", self.read("io"), re.M)[1])


def of_cluster(server):
    """Every process of the cluster: the server, pods' shims, pods' programs, and helpers that the server has just now."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            folder = pathlib.Path(f"/proc/{pid}")
            command = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            pod = re.search(r"/rk/kubepods/\S*?pod([0-9a-f-]{36})", (folder / "cgroup").read_text())
        except (OSError, IndexError):
            continue
        if pid == server:
            found.append(Process(pid, "server", None))
        elif command[0] == b"rk-shim":
            found.append(Process(pid, "shim", os.path.basename(command[1].decode())[:36]))
        elif pod:
            found.append(Process(pid, "program", pod[1]))
        elif parent == server:
            found.append(Process(pid, "server", None))
    return found


def sum_of(processes, what):
    """Sums a figure over processes and by role; those that have just ended count nothing."""
    total = {"server": 0, "shim": 0, "program": 0}
    for process in processes:
        try:
            total[process.role] += getattr(process, what)()
        except (OSError, TypeError):  # TypeError: a process without memory is ending
            continue
    return sum(total.values()), total
