"""What the tests share: running commands, waiting for conditions, a look at the host."""
import json
import os
import pathlib
import re
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("RK_CACHE", os.path.expanduser("~/.cache/rk")))
DEMO_IMAGE = "rk.local/demo:1"


def run(*command, input=None, check=True, timeout=300, env=None):
    """Runs a command; its output and errors are in the failure's text."""
    done = subprocess.run(
        [str(c) for c in command], input=input, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def kubectl(*args, input=None, timeout=300):
    return run("kubectl", *args, input=input, timeout=timeout).stdout


def refused(*args, input=None):
    """The error text of a kubectl call that must fail."""
    done = run("kubectl", *args, input=input, check=False)
    assert done.returncode != 0, f"kubectl {args} should fail, but said {done.stdout}"
    return done.stderr


def get(*args):
    return json.loads(kubectl("get", *args, "-o", "json"))


def eventually(what, check, timeout=120):
    """Waits until `check` returns something true; its last answer or error is in the failure's text."""
    end = time.monotonic() + timeout
    while True:
        try:
            answer = check()
            if answer:
                return answer
        except Exception as error:  # noqa: BLE001 - told at the end
            answer = error
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come in {timeout} s; last: {answer}")
        time.sleep(0.2)


def node_ip():
    addresses = get("nodes")["items"][0]["status"]["addresses"]
    return next(a["address"] for a in addresses if a["type"] == "InternalIP")


def server_pid():
    try:
        pid = int(pathlib.Path("/run/rk/server.lock").read_text())
        return pid if pathlib.Path(f"/proc/{pid}/exe").resolve().name.startswith("rk") else None
    except (OSError, ValueError):
        return None


def start_server():
    """Starts the server in the background, as the quickstart does where there is no systemd; its process."""
    with open("/var/log/rk.log", "ab") as log:
        return subprocess.Popen(["rk", "server"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def remove_namespace(name, timeout=120):
    """Its pods need no grace: most are shells that hear no SIGTERM."""
    kubectl("delete", "namespace", name, "--wait=false")
    run("kubectl", "-n", name, "delete", "pods", "--all", "--grace-period=1", "--wait=false", check=False)
    kubectl("wait", "--for=delete", f"namespace/{name}", f"--timeout={timeout}s")


def wait_ready(timeout=120):
    eventually("/readyz", lambda: kubectl("get", "--raw", "/readyz") == "ok", timeout)


def host_state():
    """Everything that rk makes on a host, as sets that can be compared."""
    def lines(*command):
        return set(run(*command, check=False).stdout.splitlines())

    mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}
    links = {line.split()[0].split("@")[0] for line in lines("ip", "-br", "link")}
    cgroups = {p for p in lines("find", "/sys/fs/cgroup", "-type", "d") if re.search(r"/rk(/|$)", p)}
    processes = {line for line in lines("ps", "-eo", "comm=,args=") if re.match(r"rk(-|\s|$)", line) and "<defunct>" not in line}
    files = {p for p in ["/usr/local/bin/rk", "/etc/rk", "/var/lib/rk", "/run/rk", "/var/log/pods", "/var/log/containers", "/var/log/rk.log",
                         "/etc/systemd/system/rk.service"] if os.path.exists(p)}
    netns = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    forwarding = pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    return {"mounts": mounts, "links": links, "tables": lines("nft", "list", "tables"), "cgroups": cgroups, "processes": processes,
            "files": files, "netns": netns, "routes": lines("ip", "route"), "forwarding": {forwarding}}
