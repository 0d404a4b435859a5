#!/usr/bin/env python3
"""Measures the pod network: throughput of one TCP stream and new connections per second, on one node and between two.

usage: sudo tests/bench/network.py [--seconds N] [--rounds N]

Two nodes are network namespaces on one host, joined by a veth pair, and rk's part in them is made by the crate itself
(`cargo build --release -p network --example node`, or the program that NODE_EXAMPLE names). Beside it, in turn and in the same run: a raw
veth pair between two namespaces, and a VXLAN link made by `ip` alone, between namespaces as far apart as the pods. Figures move with
what else runs on the machine; the ratios move less, so the aims are ratios. Where a card beneath offers to work on tunnels, rk switches
transmit checksum offload of its VXLAN link off, because some such cards break packets; this wire has no card, and one row shows what
switching it off costs. Needs iperf3 and ethtool.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PREFIX = f"rkb{os.getpid()}"
PORT = 5201
SERVICE = "10.43.0.80:5201"
AIMS = {"same node": 0.75, "across nodes, vxlan": 0.5}
SERVE = """
import socket
s = socket.create_server(("0.0.0.0", 5300), backlog=1024)
print("ready", flush=True)
while True:
    s.accept()[0].close()
"""
CONNECT = """
import socket, sys, time
to, seconds = (sys.argv[1], 5300), float(sys.argv[2])
count, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    s = socket.create_connection(to, timeout=5)
    s.recv(1)
    s.close()
    count += 1
print(count / (time.perf_counter() - start))
"""


def run(*words, **options):
    return subprocess.run([str(w) for w in words], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def ip(words, netns=None):
    return run("ip", *(["-n", netns] if netns else []), *words.split())


class Lab:
    """Namespaces, and the programs that serve in them."""

    def __init__(self):
        self.names, self.servers = [], []
        self.folder = tempfile.mkdtemp(prefix=PREFIX)

    def namespace(self, role):
        name = f"{PREFIX}-{role}"
        ip(f"netns add {name}")
        self.names.append(name)
        ip("link set lo up", name)
        return name

    def pair(self, one, other, link, one_address=None, other_address=None, mtu=1500):
        ip(f"link add {link} mtu {mtu} type veth peer name {link} mtu {mtu} netns {other}", one)
        for netns, address in ((one, one_address), (other, other_address)):
            if address:
                ip(f"addr add {address} dev {link}", netns)
            ip(f"link set {link} up", netns)

    def serve(self, netns):
        inside = ["ip", "netns", "exec", netns]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.servers.append(subprocess.Popen([*inside, "iperf3", "-s", "-p", str(PORT)], **quiet))
        accept = subprocess.Popen([*inside, sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
        accept.stdout.readline()
        self.servers.append(accept)

    def close(self):
        for server in self.servers:
            server.kill()
            server.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def example():
    given = os.environ.get("NODE_EXAMPLE")
    if given:
        return given
    build = ["cargo", "build", "--release", "-p", "network", "--example", "node", "--message-format=json"]
    out = run(*build, cwd=ROOT)
    made = [json.loads(line) for line in out.splitlines()]
    return next(m["executable"] for m in made if m.get("executable") and m["target"]["name"] == "node")


def raw_veth(lab):
    one, other = lab.namespace("raw1"), lab.namespace("raw2")
    lab.pair(one, other, "raw0", "192.168.90.1/24", "192.168.90.2/24")
    lab.serve(other)
    return one, "192.168.90.2"


def plain_vxlan(lab):
    """Pod, node, VXLAN, node, pod: by `ip` alone, without any rules."""
    nodes = [lab.namespace("px1"), lab.namespace("px2")]
    lab.pair(*nodes, "wire0", "192.168.91.1/24", "192.168.91.2/24")
    pods = []
    for n, node in ((1, nodes[0]), (2, nodes[1])):
        other = 3 - n
        ip(f"link add vx0 type vxlan id 7 dstport 8472 local 192.168.91.{n} remote 192.168.91.{other} nolearning", node)
        ip(f"addr add 10.99.0.{n}/24 dev vx0", node)
        ip("link set vx0 mtu 1450 up", node)
        pod = lab.namespace(f"pp{n}")
        lab.pair(node, pod, "eth0", f"10.99.{n}.1/24", f"10.99.{n}.2/24", 1450)
        ip(f"route add default via 10.99.{n}.1", pod)
        ip(f"route add 10.99.{other}.0/24 via 10.99.0.{other}", node)
        run("ip", "netns", "exec", node, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        pods.append(pod)
    lab.serve(pods[1])
    return pods[0], "10.99.2.2"


def rk(lab, backend, program, offload=True):
    """Two nodes, three pods: the client, one beside it, one on the other node. `offload`: as rk leaves it on a wire without cards."""
    tag = backend[:2] + ("" if offload else "o")
    nodes = [lab.namespace(f"{tag}n1"), lab.namespace(f"{tag}n2")]
    lab.pair(*nodes, "wire0", "192.168.92.1/24", "192.168.92.2/24")
    pods = [lab.namespace(f"{tag}p{n}") for n in (1, 2, 3)]

    def node(n, *words):
        state = pathlib.Path(lab.folder) / f"{tag}{n}"
        state.mkdir(exist_ok=True)
        out = run("ip", "netns", "exec", nodes[n - 1], program, f"192.168.92.{n}", f"10.42.{n}.0/24", state, backend,
                  f"peer=192.168.92.{3 - n},10.42.{3 - n}.0/24", *words)
        return out.split()

    remote, = node(2, f"pod={pods[2]}")
    _, near = node(1, f"pod={pods[0]}", f"pod={pods[1]}", f"service={SERVICE},{remote}:{PORT}")
    for name in [] if offload else nodes:
        run("ip", "netns", "exec", name, "ethtool", "-K", "rk-vx", "tx-checksum-ip-generic", "off")
    lab.serve(pods[1])
    lab.serve(pods[2])
    return pods[0], near, remote


def throughput(client, address, seconds):
    out = run("ip", "netns", "exec", client, "iperf3", "-J", "-c", address, "-p", PORT, "-t", seconds)
    return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 1e9


def connections(client, address, seconds):
    return float(run("ip", "netns", "exec", client, sys.executable, "-c", CONNECT, address, seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("iperf3"):
        sys.exit("network.py needs root and iperf3")
    program = example()
    lab = Lab()
    try:
        paths = {"raw veth": raw_veth(lab), "plain VXLAN, by ip": plain_vxlan(lab)}
        client, near, remote = rk(lab, "vxlan", program)
        paths["same node"] = (client, near)
        paths["across nodes, vxlan"] = (client, remote)
        paths["across nodes, vxlan, by ClusterIP"] = (client, SERVICE.split(":")[0])
        client, _, remote = rk(lab, "vxlan", program, offload=False)
        paths["the same, checksum offload off"] = (client, remote)
        client, _, remote = rk(lab, "host-gw", program)
        paths["across nodes, host-gw"] = (client, remote)
        time.sleep(1)
        streams = {name: [] for name in paths}
        rates = {name: [] for name in paths if "ClusterIP" not in name}
        for _ in range(options.rounds):
            # In turn, so that what else runs disturbs all alike.
            for name, (client, address) in paths.items():
                streams[name].append(throughput(client, address, options.seconds))
                if name in rates:
                    rates[name].append(connections(client, address, options.seconds))
    finally:
        lab.close()

    load = os.getloadavg()[0]
    print(f"one TCP stream and sequential connections, {options.rounds} rounds of {options.seconds:g} s; load {load:.1f}")
    print(f"  {'path':<36}{'Gbit/s: best':>13}{'median':>8}{'of raw veth':>12}{'connections/s':>15}")
    raw = statistics.median(streams["raw veth"])
    missed = 0
    for name, values in streams.items():
        ratio = statistics.median(values) / raw
        rate = f"{statistics.median(rates[name]):.0f}" if name in rates else "-"
        line = f"  {name:<36}{max(values):>13.1f}{statistics.median(values):>8.1f}{ratio:>12.2f}{rate:>15}"
        if name in AIMS:
            met = ratio >= AIMS[name]
            missed += not met
            line += f"  aim >= {AIMS[name]}: {'met' if met else 'MISSED'}"
        print(line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
