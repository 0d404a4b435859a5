#!/usr/bin/env python3
"""Measures what a crowd of strangers does to everybody else: a small get before and during, and the server's memory.

usage: sudo tests/bench/crowd.py [--quick] [--idle N] [--slow N] [--listers N] [--pods N] [--seconds N] [--name LAB]

A lab's server gets ConfigMaps and then, one after the other: connections that say nothing after their handshake; others that send the head or the
body of a request byte by byte; clients that list everything in a loop. Throughout, one client gets one object on a connection that stays, and
another on a new connection each second; all of these are ServiceAccounts, two for the two sides, whom the server's fair queues know apart. The figures are printed; what fails the run is a request without an answer, an answer after more than
ten seconds, or memory beyond its bound. RK_BINARY and XTASK name the programs. With --inside the part that runs in the lab.
"""
import argparse
import asyncio
import base64
import json
import os
import pathlib
import re
import resource
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "tests/bench"), str(ROOT / "tests/system")]

ANSWER_SECONDS_MAX = 10
# Each connection with its TLS state and the task that serves it; lists are shared bytes.
BYTES_EACH_MAX = 64 << 10
BYTES_MORE_MAX = 300_000_000
LISTED = ["/api/v1/configmaps", "/api/v1/pods", "/api/v1/events", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/openapi/v2", "/apis"]
SMALL = "/api/v1/namespaces/default"
FILLED = "/api/v1/namespaces/default/configmaps"


def memory(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("crowd: the server has no memory")


ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


def account(admin, name):
    """The token of a ServiceAccount that may do everything."""
    admin.request("POST", ACCOUNTS, {"metadata": {"name": name}})
    admin.request("POST", BINDINGS, {"metadata": {"name": name}, "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
                                     "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}})
    return admin.request("POST", f"{ACCOUNTS}/{name}/token", {"spec": {}})["status"]["token"]


class Crowd:
    def __init__(self, access, authority, pid):
        self.access, self.pid = access, pid
        admin = access.connect()
        self.stranger, self.bystander = account(admin, "stranger"), account(admin, "bystander")
        self.tls = ssl.create_default_context(cadata=authority)  # without the administrator's certificate
        self.kept, self.fresh, self.failed = [], [], []
        self.others = []
        self.lists = 0

    async def connect(self):
        return await asyncio.open_connection(self.access.host, self.access.port, ssl=self.tls, ssl_handshake_timeout=60)

    async def ask(self, token, reader, writer, path, method="GET", body=b""):
        head = (f"{method} {path} HTTP/1.1\r\nHost: rk\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        length = None
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "transfer-encoding":
                length = -1
        if length == -1:
            while size := int((await reader.readline()).strip() or b"0", 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        elif length:
            await reader.readexactly(length)
        return status

    async def measured(self, into, path, streams=None):
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                mine = streams or await self.connect()
                status = await self.ask(self.bystander, *mine, path)
            if status != 200:
                self.failed.append(f"{path}: {status}")
            into.append((time.perf_counter() - began) * 1000)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError, ValueError) as error:
            self.failed.append(f"{path}: {error!r}")
            return False
        if not streams:
            mine[1].close()
        return True

    async def bystanders(self):
        async def keeps():
            streams = await self.connect()
            while True:
                if not await self.measured(self.kept, SMALL, streams):
                    streams = await self.connect()
                await asyncio.sleep(0.02)

        async def comes_anew():
            while True:
                await self.measured(self.fresh, SMALL)
                await asyncio.sleep(1)
        self.watchers = [asyncio.create_task(keeps()), asyncio.create_task(comes_anew())]

    async def show(self, what, seconds):
        self.kept.clear(), self.fresh.clear()
        await asyncio.sleep(seconds)
        kept, fresh = sorted(self.kept), sorted(self.fresh)
        used = memory(self.pid)
        if not kept or not fresh:
            self.failed.append(f"{what}: nobody was answered")
            return used
        at = lambda values, part: values[min(len(values) - 1, int(len(values) * part))]  # noqa: E731
        print(f"{what:<44} get p50 {at(kept, .5):7.2f}  p99 {at(kept, .99):8.2f} ms   on a new connection p50 {at(fresh, .5):7.2f}  slowest"
              f" {fresh[-1]:8.2f} ms   memory {used / 1e6:7.1f} MB   ({len(kept)} gets)", flush=True)
        return used

    async def open(self, count):
        """Connections, some at a time."""
        opened = []

        async def some(number):
            for _ in range(number):
                try:
                    opened.append(await self.connect())
                except OSError as error:
                    self.failed.append(f"connect: {error!r}")
        await asyncio.gather(*(some(count // 20 + (i < count % 20)) for i in range(20)))
        return opened

    async def trickle(self, streams, number):
        """The head of a request, or the body of one, byte by byte."""
        reader, writer = streams
        try:
            if number % 2:
                writer.write(f"POST {FILLED} HTTP/1.1\r\nHost: rk\r\nAuthorization: Bearer {self.stranger}\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n".encode())
            else:
                writer.write(b"GET /api/v1/pods HTTP/1.1\r\nX-Slow: ")
            while True:
                writer.write(b"a" if number % 2 == 0 else b" ")
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            pass  # the server has had enough of it, as it should

    async def list_all(self, number):
        streams, turn = None, number
        while True:
            try:
                streams = streams or await self.connect()
                await self.ask(self.stranger, *streams, LISTED[turn % len(LISTED)])
                self.lists += 1
                turn += 1
            except (OSError, asyncio.IncompleteReadError, IndexError, ValueError):
                streams = None
                await asyncio.sleep(0.1)

    async def run(self, options):
        filler = await self.connect()
        text = "x" * 1000
        for i in range(options.pods):
            body = json.dumps({"metadata": {"name": f"crowd-{i}"}, "data": {"text": text}}).encode()
            status = await self.ask(self.stranger, *filler, FILLED, "POST", body)
            if status != 201:
                raise SystemExit(f"crowd: create: {status}")
        await self.bystanders()
        alone = await self.show("alone", options.seconds)
        bound = alone
        idle = await self.open(options.idle)
        used = await self.show(f"{len(idle)} idle connections", options.seconds)
        bound += options.idle * BYTES_EACH_MAX + 20_000_000
        self.check(used, bound, f"{options.idle} idle connections")
        print(f"  {(used - alone) / max(1, len(idle)) / 1000:.1f} kB each", flush=True)
        slow = await self.open(options.slow)
        trickles = [asyncio.create_task(self.trickle(streams, i)) for i, streams in enumerate(slow)]
        used = await self.show(f"and {len(slow)} slow ones", options.seconds)
        bound += options.slow * BYTES_EACH_MAX
        self.check(used, bound, f"{options.slow} slow connections")
        listers = [asyncio.create_task(self.list_all(i)) for i in range(options.listers)]
        for _ in range(2):
            before, began = self.lists, time.monotonic()
            used = await self.show(f"and {options.listers} clients that list everything", options.seconds)
            print(f"  {(self.lists - before) / (time.monotonic() - began):.0f} lists a second", flush=True)
            self.check(used, bound + BYTES_MORE_MAX, "lists in a loop")
        for task in trickles + listers + self.watchers:
            task.cancel()
        for _, writer in idle + slow:
            writer.transport.abort()
        await asyncio.sleep(3)
        print(f"{'afterwards':<44} memory {memory(self.pid) / 1e6:.1f} MB", flush=True)

    def check(self, used, bound, what):
        if used > bound:
            self.failed.append(f"{what}: {used / 1e6:.0f} MB, more than {bound / 1e6:.0f} MB")


def inside(options):
    import rawapi
    encoded = re.search(r"certificate-authority-data:\s*(\S+)", pathlib.Path(options.kubeconfig).read_text())[1]
    crowd = Crowd(rawapi.Access(options.kubeconfig), base64.b64decode(encoded).decode(), options.pid)
    asyncio.run(crowd.run(options))
    if crowd.failed:
        print(f"{len(crowd.failed)} failures:", *sorted(set(crowd.failed))[:20], sep="\n  ")
        raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    for name, default in [("idle", 10_000), ("slow", 1000), ("listers", 100), ("pods", 2000), ("seconds", 15), ("pid", 0)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--name", default="bench-crowd")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.idle, options.slow, options.listers, options.pods, options.seconds = 500, 100, 20, 200, 3
    if options.inside:
        return inside(options)
    import api  # the lab, and which of its processes is the server
    missing = [name for name in ("RK_BINARY", "XTASK") if not os.environ.get(name)]
    if missing:
        raise SystemExit(f"crowd: set {', '.join(missing)}")
    # Of the clients, which inherit it.
    most = max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], options.idle + options.slow + options.listers + 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="rk-bench-") as folder:
        lab = api.Rk(os.environ["XTASK"], options.name, pathlib.Path(folder))
        try:
            lab.up(os.environ["RK_BINARY"])
            api.until("rk to be ready", api.ready(lab))
            print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
            words = [f"--{name}={getattr(options, name)}" for name in ("idle", "slow", "listers", "pods", "seconds")]
            run = subprocess.run(lab.command("hub", sys.executable, os.path.abspath(__file__), "--inside", f"--kubeconfig={lab.kubeconfig}",
                                             f"--pid={lab.pids()[0]}", *words))
        finally:
            lab.down()
    sys.exit(run.returncode)


if __name__ == "__main__":
    main()
