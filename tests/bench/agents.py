#!/usr/bin/env python3
"""Measures agents: how soon one is Ready, what it uses, what many cost their server, and how fast many join at once.

usage: sudo tests/bench/agents.py [--count 100] [--seconds 60]

The server runs in a lab (`cargo xtask lab`) from RK_BINARY; the agents are tasks of one program (src/tunnel/examples/agents.rs) that
speak the whole protocol and run no containers. XTASK and RK_AGENTS name the two programs where they are built already.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "bench-agents"


def built(variable, *what):
    if variable in os.environ:
        return os.environ[variable]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "x86_64-unknown-linux-gnu/debug"
    subprocess.run(["cargo", "build", "-j2", "--quiet", *what[:-1]], check=True, cwd=ROOT)
    return str(target / what[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    xtask = built("XTASK", "--package", "xtask", "xtask")
    agents = built("RK_AGENTS", "--package", "tunnel", "--example", "agents", "examples/agents")
    rk = built("RK_BINARY", "--package", "rk", "rk")

    def lab(*words):
        return subprocess.run([xtask, "lab", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def on(machine, *words):
        return lab("exec", "--name", NAME, machine, "--", *words)

    def server():
        """Bytes of memory and seconds on a core, of the server's process."""
        text = on("server-1", "sh", "-c", "read -r pid < /run/rk/server.lock; cat /proc/$pid/smaps_rollup /proc/$pid/stat")
        fields = text.splitlines()[-1].rsplit(")", 1)[1].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) * 1024, (int(fields[11]) + int(fields[12])) / ticks

    def watch(what, seconds):
        _, before = server()
        time.sleep(seconds)
        memory, after = server()
        print(f"{what:<28} server: {memory / 1e6:7.1f} MB, {(after - before) / seconds * 100:6.2f} % of a core over {seconds} s", flush=True)
        return memory

    def one():
        """A real agent: from `rk agent join` on a prepared machine to Ready, and what all its processes use at rest."""
        times = []
        for _ in range(3):
            lab("kill", "--name", NAME, "agent-1")
            on("agent-1", "rm", "-r", "/var/lib/rk/agent")
            on("hub", "kubectl", "delete", "node", "agent-1")
            began = time.monotonic()
            lab("start", "--name", NAME, "agent-1")
            ready = 'for i in $(seq 2000); do kubectl get node agent-1 --no-headers 2>/dev/null | grep -q " Ready " && exit 0; sleep 0.02; done; exit 1'
            on("hub", "sh", "-c", ready)
            times.append(time.monotonic() - began)
        print(f"rk agent join to Ready: {', '.join(f'{t:.2f}' for t in times)} s (aim 1 s), of it {kubectl_seconds():.2f} s for each look by kubectl")
        time.sleep(20)
        text = on("agent-1", "sh", "-c", "for p in /proc/[0-9]*; do case $(cat $p/comm) in rk*) cat $p/smaps_rollup;; esac; done 2>/dev/null")
        total = sum(map(int, re.findall(r"^Pss:\s+(\d+) kB", text, re.M))) / 1000
        own = sum(map(int, re.findall(r"^Pss_Anon:\s+(\d+) kB", text, re.M))) / 1000
        print(f"idle agent, all processes, PSS: {total:.1f} MB (aim 25 MB), of it {own:.1f} MB anonymous", flush=True)

    def kubectl_seconds():
        began = time.monotonic()
        on("hub", "kubectl", "get", "node", "agent-1")
        return time.monotonic() - began

    lab("up", "--name", NAME, "--servers", "1", "--agents", "1", "--binary", rk)
    try:
        one()
        lab("kill", "--name", NAME, "agent-1")
        time.sleep(5)
        alone = watch("no agent", options.seconds // 2)
        command = on("server-1", "rk", "token", "create").split()
        url, token = command[command.index("--server") + 1], command[-1].split("::")[1]
        ca = on("server-1", "cat", "/var/lib/rk/server/tls/server-ca.crt")
        path = pathlib.Path("/run/rk-lab") / NAME / "bench-ca.crt"
        path.write_text(ca)
        words = [xtask, "lab", "exec", "--name", NAME, "hub", "--", agents, url, token, str(path), str(options.count), str(options.seconds + 20)]
        load = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        print(load.stdout.readline().strip(), flush=True)
        time.sleep(10)
        memory = watch(f"{options.count} agents, idle", options.seconds)
        print(f"{'each agent':<28} server: {(memory - alone) / options.count / 1000:7.0f} kB")
        print("nodes Ready:", on("hub", "kubectl", "get", "nodes", "--no-headers").count(" Ready "))
        load.wait(timeout=60)
    finally:
        lab("down", "--name", NAME)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
