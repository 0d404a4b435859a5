"""One server and two agents, each a machine of its own (`cargo xtask lab`): joining, the tunnel, crashes, and what is said when it fails."""
import json
import pathlib
import re
import time

import lab
import pytest
from lab import eventually, run
from machines import Machines

NAME = "agents"
IMAGE = "rk.local/demo:1"


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    made = Machines(NAME)
    archive = tmp_path_factory.mktemp("image") / "demo.tar"
    run(lab.ROOT / "installer/demo-image.sh", archive, IMAGE)
    made.up(2, 1, "--server-argument", "--tls-san=192.168.50.1")
    try:
        for machine in ("agent-1", "agent-2"):
            made.on(machine, "rk", "image", "import", archive)
        yield made
    finally:
        made.task("down")


def pod(name, node):
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo started; echo $HOSTNAME > /www/index.html; httpd -p 8080 -h /www; while read line; do echo got $line; done; sleep 1d"],
            "stdin": True, "securityContext": {"runAsUser": 0}}]}})


def wait_for_pod(machines, name):
    eventually(f"pod {name}", lambda: machines.get("pod", name)["status"]["phase"] == "Running")


def container_id(machines, name):
    return machines.get("pod", name)["status"]["containerStatuses"][0]["containerID"]


def test_agents_are_ready_and_hold_no_secret_but_their_key(machines):
    nodes = {n["metadata"]["name"]: n for n in machines.get("nodes")["items"]}
    assert sorted(nodes) == ["agent-1", "agent-2", "server-1"]
    assert len({n["spec"]["podCIDR"] for n in nodes.values()}) == 3
    files = machines.on("agent-1", "find", "/var/lib/rk/agent", "-type", "f", "-printf", "%f %m\n").stdout.split("\n")
    assert sorted(filter(None, files)) == ["agent.json 600", "client.crt 644", "client.key 600", "server-ca.crt 644"]
    machines.on("agent-1", "sh", "-c", "! grep -rq '::' /var/lib/rk/agent")
    facts = machines.get("-n", "kube-system", "configmap", "rk-cluster")["data"]
    assert facts["clusterCIDR"] == "10.42.0.0/16" and facts["clusterDomain"] == "cluster.local"


def test_logs_exec_attach_forward_and_proxies_reach_an_agent(machines):
    machines.kubectl("apply", "-f", "-", input=pod("far", "agent-1"))
    wait_for_pod(machines, "far")
    assert machines.kubectl("logs", "far") == "started\n"
    assert machines.kubectl("exec", "far", "--", "echo", "hello") == "hello\n"
    assert machines.kubectl("exec", "-i", "far", "--", "cat", input="x" * 300_000) == "x" * 300_000
    assert "got me" in eventually("attach", lambda: machines.on(
        "hub", "sh", "-c", "(echo me; sleep 2) | timeout 5 kubectl attach -i far", check=False).stdout)
    forward = machines.on(
        "hub", "sh", "-c",
        "kubectl port-forward pod/far 18080:8080 >/dev/null & sleep 2; curl -s --retry 5 --retry-connrefused http://127.0.0.1:18080/; kill $!").stdout
    assert forward == "far\n"
    assert machines.kubectl("get", "--raw", "/api/v1/nodes/agent-1/proxy/healthz") == "ok"
    assert machines.kubectl("get", "--raw", "/api/v1/nodes/agent-2/proxy/stats/summary").startswith("{")
    assert "container_" in machines.kubectl("get", "--raw", "/api/v1/nodes/agent-1/proxy/metrics/resource")


def test_an_agent_listens_on_no_port(machines):
    ours = machines.on("agent-1", "cat", "/run/rk/server.lock").stdout
    listeners = machines.on("agent-1", "ss", "-Hltnp").stdout
    assert not re.search(rf"pid={ours}\b", listeners), listeners


def test_a_restarted_agent_leaves_its_containers_alone(machines):
    before = container_id(machines, "far")
    machines.task("kill", "agent-1")
    done = machines.on("hub", "kubectl", "logs", "far", check=False)
    assert 'error dialing backend: node "agent-1" is not connected to this server' in done.stderr
    machines.task("start", "agent-1")
    eventually("its tunnel", lambda: machines.kubectl("logs", "far").startswith("started"))
    assert container_id(machines, "far") == before
    assert machines.get("pod", "far")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_restarted_server_gets_its_agents_back(machines):
    before = container_id(machines, "far")
    machines.task("kill", "server-1")
    time.sleep(2)
    machines.task("start", "server-1")
    eventually("the tunnel", lambda: machines.kubectl("logs", "far").startswith("started"))
    assert container_id(machines, "far") == before


def test_an_agent_starts_while_the_server_is_away(machines):
    before = container_id(machines, "far")
    machines.task("kill", "server-1")
    machines.task("kill", "agent-1")
    machines.task("start", "agent-1")
    eventually("the agent", lambda: "rk agent runs" in machines.log("agent-1").split("cannot be reached")[-1] or "no tunnel" in machines.log("agent-1"))
    machines.task("start", "server-1")
    eventually("the tunnel", lambda: machines.kubectl("logs", "far").startswith("started"))
    assert container_id(machines, "far") == before


def test_an_agent_that_is_cut_off_becomes_not_ready_and_comes_back(machines):
    machines.task("link", "agent-2", "cut")
    eventually("agent-2 NotReady", lambda: not machines.ready("agent-2"))
    machines.task("link", "agent-2", "restore")
    eventually("agent-2 Ready", lambda: machines.ready("agent-2"))
    eventually("its tunnel", lambda: machines.kubectl("get", "--raw", "/api/v1/nodes/agent-2/proxy/healthz") == "ok")


def test_what_is_wrong_with_a_join_is_said_in_a_sentence(machines):
    server = f"https://{machines.address('server-1')}:6443"
    token = machines.token()
    machines.on("server-1", "rk", "token", "delete", token.split("::")[1].split(".")[0])
    machines.task("kill", "agent-2")
    # As a machine that was installed anew.
    machines.on("agent-2", "mv", "/var/lib/rk/agent", "/var/lib/rk/agent.old")
    fails = machines.join_fails
    assert "rk token" in fails("agent-2", "--server", server, "--token", token), "a deleted token"
    good = machines.token()
    other = re.sub(r"^K1.{64}", "K1" + "0" * 64, good)
    error = fails("agent-2", "--server", server, "--token", other)
    assert "another cluster" in error and "rk token" in error
    error = fails("agent-2", "--server", f"https://{machines.address('server-1')}:7000", "--token", good)
    assert "cannot be reached: Connection refused" in error and "rk server" in error
    assert "--token" in fails("agent-2", "--server", server, "--token", good[:-1])
    assert "https://HOST:PORT" in fails("agent-2", "--server", "10.0.0.1", "--token", good)
    assert "rk token" in fails("agent-2")
    error = fails("agent-2", "--server", server, "--token", good, "--node-name", "agent-2")
    assert "node name taken" in error and "kubectl delete node agent-2" in error
    machines.on("agent-2", "sh", "-c", "rm -r /var/lib/rk/agent; mv /var/lib/rk/agent.old /var/lib/rk/agent")
    stored = machines.on("agent-2", "cat", "/var/lib/rk/agent/server-ca.crt").stdout
    machines.on("agent-2", "sh", "-c", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout /dev/null -out /var/lib/rk/agent/server-ca.crt 2>/dev/null")
    assert "--leave-old-cluster" in fails("agent-2", "--server", server, "--token", good)
    machines.on("agent-2", "sh", "-c", "cat > /var/lib/rk/agent/server-ca.crt", input=stored)
    machines.task("start", "agent-2")
    eventually("agent-2 Ready", lambda: machines.ready("agent-2"))


def test_an_agent_says_what_its_kernel_lacks_before_it_does_anything(machines):
    machines.task("kill", "agent-2")
    try:
        lacking = ["python3", pathlib.Path(__file__).with_name("lacking.py"), "nf_tables,overlay", "--"]
        done = machines.on("agent-2", *lacking, "timeout", "30", "rk", "agent", "--data-dir", "/var/lib/rk/none", check=False)
        assert done.returncode not in (0, 124), done.stdout + done.stderr
        said = done.stderr.strip().splitlines()[-1]
        assert "this machine lacks something: overlay file system: load it: modprobe overlay" in said and "; and nf_tables: " in said and "modprobe nf_tables" in said
        assert machines.on("agent-2", "ls", "/var/lib/rk/none", check=False).returncode != 0
    finally:
        machines.task("start", "agent-2")
    eventually("agent-2 Ready", lambda: machines.ready("agent-2"))


def test_a_machine_that_was_installed_anew_joins_after_its_node_is_deleted(machines):
    machines.task("kill", "agent-2")
    machines.on("agent-2", "rm", "-r", "/var/lib/rk/agent")
    machines.kubectl("delete", "node", "agent-2")
    machines.task("start", "agent-2")
    eventually("agent-2 Ready", lambda: machines.ready("agent-2"))


def certify(machines, start, end):
    """Gives the stopped agent-2 another certificate on its key, as the cluster would have made it at another time."""
    request = machines.on(
        "agent-2", "openssl", "req", "-new", "-key", "/var/lib/rk/agent/client.key", "-subj", "/O=system:nodes/CN=system:node:agent-2").stdout
    script = """
        set -e; tls=/var/lib/rk/server/tls; cd $(mktemp -d); cat > request; touch index; echo 01 > serial
        printf '%s\\n' '[ca]' 'default_ca=d' '[d]' 'database=index' 'serial=serial' 'new_certs_dir=.' 'default_md=sha256' 'policy=p' \\
            'x509_extensions=x' '[p]' 'organizationName=supplied' 'commonName=supplied' '[x]' 'extendedKeyUsage=clientAuth' > config
        openssl ca -config config -batch -notext -in request -cert $tls/client-ca.crt -keyfile $tls/client-ca.key -startdate $1 -enddate $2 2>/dev/null"""
    made = machines.on("server-1", "sh", "-c", script, "sh", start, end, input=request).stdout
    machines.on("agent-2", "sh", "-c", "cat > /var/lib/rk/agent/client.crt", input=made)
    return made


def utc(days):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))


def test_a_certificate_in_its_last_third_is_renewed_while_the_agent_runs(machines):
    machines.task("kill", "agent-2")
    old = certify(machines, utc(-300), utc(30))
    machines.task("start", "agent-2")
    now = lambda: machines.on("agent-2", "cat", "/var/lib/rk/agent/client.crt").stdout
    eventually("a new certificate", lambda: now() != old and "BEGIN" in now())
    eventually("its tunnel", lambda: machines.kubectl("get", "--raw", "/api/v1/nodes/agent-2/proxy/healthz") == "ok")
    eventually("its lease by the new certificate", lambda: machines.ready("agent-2"))


def test_an_agent_whose_certificate_ended_says_so_and_joins_again(machines):
    machines.task("kill", "agent-2")
    certify(machines, utc(-300), utc(-1))
    done = machines.on("agent-2", "timeout", "30", "rk", "agent", check=False)
    assert "certificate ended" in done.stderr and "rk token" in done.stderr
    machines.task("start", "agent-2")  # its command has a token
    eventually("its tunnel", lambda: machines.kubectl("get", "--raw", "/api/v1/nodes/agent-2/proxy/healthz") == "ok")


def test_only_a_node_opens_a_tunnel(machines):
    done = machines.on("hub", "kubectl", "get", "--raw", "/rk/v1/tunnel", check=False)
    assert "is no node, and only a node opens a tunnel" in done.stderr


def test_a_node_behind_nat_works_with_no_port_open(machines):
    """The hub is the router: the node has a private network behind it, and the server has no route there."""
    machines.task("kill", "agent-2")
    for words in ["ip link set v-agent-2 nomaster", "ip addr add 192.168.50.1/24 dev v-agent-2", "nft add table ip nat",
                  "nft add chain ip nat postrouting { type nat hook postrouting priority 100 ; }",
                  "nft add rule ip nat postrouting ip saddr 192.168.50.0/24 masquerade"]:
        machines.on("hub", *words.split(" "))
    link = machines.on("agent-2", "sh", "-c", "ip -o -4 addr | grep ' 10.99' | awk '{print $2}'").stdout.strip()
    for words in [f"ip addr flush dev {link}", f"ip addr add 192.168.50.2/24 dev {link}", "ip route replace default via 192.168.50.1"]:
        machines.on("agent-2", *words.split(" "))
    assert machines.on("server-1", "ping", "-c1", "-W1", "192.168.50.2", check=False).returncode != 0, "the server reaches the node"
    machines.on("agent-2", "sh", "-c", "setsid rk agent --node-ip 192.168.50.2 </dev/null >>/run/lab/nat.log 2>&1 & echo $! > /run/lab/rk.pid")
    machines.kubectl("apply", "-f", "-", input=pod("private", "agent-2"))
    wait_for_pod(machines, "private")
    assert machines.get("node", "agent-2")["status"]["addresses"][0]["address"] == "192.168.50.2"
    assert machines.kubectl("logs", "private") == "started\n"
    assert machines.kubectl("exec", "private", "--", "echo", "hello") == "hello\n"
    assert machines.kubectl("get", "--raw", "/api/v1/nodes/agent-2/proxy/healthz") == "ok"
    seen = machines.on("server-1", "ss", "-Htn", "state", "established", "sport = :6443").stdout
    assert "192.168.50." not in seen, f"only the router's address is seen: {seen}"
    machines.kubectl("delete", "pod", "private", "--wait=true")


def test_an_agent_that_knows_several_addresses_takes_one_that_lives(machines):
    """The hub passes a port of its own on to the server: the second address of the same cluster."""
    relay = """
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
listener = socket.create_server(("0.0.0.0", 6443))
while True:
    near = listener.accept()[0]
    far = socket.create_connection((sys.argv[1], 6443))
    for pair in ((near, far), (far, near)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""
    server, router = machines.address("server-1"), "192.168.50.1"
    machines.on("hub", "sh", "-c", f"setsid python3 -c \"$0\" {server} </dev/null >/dev/null 2>&1 & echo $! > /run/rk-lab/{NAME}/relay.pid", relay)
    try:
        machines.task("kill", "agent-2")
        machines.on("agent-2", "sh", "-c", "setsid rk agent --node-ip 192.168.50.2 --server https://192.168.50.77:6443 "
                    f"--server https://{server}:6443 --server https://{router}:6443 </dev/null >>/run/lab/nat.log 2>&1 & echo $! > /run/lab/rk.pid")
        machines.kubectl("apply", "-f", "-", input=pod("served", "agent-2"))
        wait_for_pod(machines, "served")
        # The one that it uses goes away for this node alone: the next is taken, and the container does not notice.
        before = container_id(machines, "served")
        machines.on("hub", "nft", "add table ip cut; add chain ip cut forward { type filter hook forward priority 0 ; }; "
                    f"add rule ip cut forward ip saddr 192.168.50.2 ip daddr {server} drop")
        eventually("logs by the other address", lambda: machines.kubectl("logs", "served", check=False).startswith("started"))
        eventually("Ready", lambda: machines.ready("agent-2"))
        assert container_id(machines, "served") == before
    finally:
        machines.on("hub", "sh", "-c", f"kill $(cat /run/rk-lab/{NAME}/relay.pid)")


def test_uninstall_leaves_nothing_on_an_agent(machines):
    before = machines.on("agent-1", "sh", "-c", "ls -A /var/lib/rk | wc -l").stdout.strip()
    assert before != "0"
    machines.kubectl("delete", "pod", "far", "--wait=false")
    # The machine's folders are mounts here, and stay as empty ones.
    machines.on("agent-1", "rk", "uninstall", check=False)
    left = machines.on("agent-1", "sh", "-c", "find /var/lib/rk /run/rk /var/log/pods /var/log/containers -mindepth 1 2>/dev/null; nft list tables; ip -o link | grep -E 'rk|veth' || true").stdout
    assert left.strip() == "", left
