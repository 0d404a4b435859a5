"""How another machine gets an identity, and how far it reaches: rk token, kubectl, openssl and curl, no agent."""
import base64
import hashlib
import json
import re
import ssl
import subprocess
import time

import pytest

import lab
from lab import kubectl, run

COMMAND = re.compile(r"rk agent join --server (https://\S+) --token K1([0-9a-f]{64})::([a-z0-9]{6}\.[a-z0-9]{16})\n")


class Newcomer:
    """What a machine knows that was told the join command, and nothing else."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.server, self.ca_hash, self.token = COMMAND.fullmatch(run("rk", "token", *options).stdout).groups()
        # Not yet trusted: that is what the hash is for.
        bundle = run("curl", "-sk", f"{self.server}/cacerts").stdout
        assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(bundle)).hexdigest() == self.ca_hash
        self.ca = folder / "ca.crt"
        self.ca.write_text(bundle)

    def command(self, *args, who=None):
        credential = who or [f"--token={self.token}"]
        return ["kubectl", "--kubeconfig=/dev/null", f"--server={self.server}", f"--certificate-authority={self.ca}", *credential, *args]

    def kubectl(self, *args, who=None, input=None, check=True):
        return run(*self.command(*args, who=who), input=input, check=check)

    def key(self, name):
        key = self.folder / f"{name}.key"
        if not key.exists():
            run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        return key

    def ask(self, node, key, who=None):
        """The conditions of a request for a node's certificate, and the certificate."""
        csr = run("openssl", "req", "-new", "-key", self.key(key), "-subj", f"/O=system:nodes/CN=system:node:{node}").stdout
        request = {
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "node-csr-"},
            "spec": {"request": base64.b64encode(csr.encode()).decode(), "usages": ["digital signature", "client auth"],
                     "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "expirationSeconds": 3600}}
        name = self.kubectl("create", "-f", "-", "-o", "name", who=who, input=json.dumps(request)).stdout.strip()

        def answer():
            status = json.loads(self.kubectl("get", name, "-o", "json", who=who).stdout)["status"]
            conditions = status.get("conditions", [])
            return status if status.get("certificate") or any(c["type"] == "Denied" for c in conditions) else None
        status = lab.eventually("an answer to the request", answer, 20)
        return status["conditions"][0], base64.b64decode(status.get("certificate", "")).decode()

    def join(self, node, key):
        condition, certificate = self.ask(node, key)
        assert condition["reason"] == "AutoApproved", condition
        path = self.folder / f"{node}-{key}.crt"
        path.write_text(certificate)
        return [f"--client-certificate={path}", f"--client-key={self.key(key)}"]


@pytest.fixture()
def newcomer(tmp_path):
    made = Newcomer(tmp_path)
    yield made
    for node in ("edge", "edge-2"):
        kubectl("delete", "node", node, "--ignore-not-found")
    run("rk", "token", "delete", made.token.split(".")[0], check=False)


def test_a_token_is_listed_without_its_secret_and_deleted(tmp_path):
    made = Newcomer(tmp_path, "create", "--ttl", "90m", "--description", "a test")
    token_id, secret = made.token.split(".")
    listed = run("rk", "token", "list").stdout
    assert re.search(rf"^{token_id}  1h(29|30)m .* a test$", listed, re.M) and secret not in listed, listed
    who = json.loads(made.kubectl("create", "--raw=/apis/authentication.k8s.io/v1/selfsubjectreviews", "-f", "-", input="{}").stdout)
    user = who["status"]["userInfo"]
    assert user["username"] == f"system:bootstrap:{token_id}" and "system:bootstrappers" in user["groups"]
    refused = made.kubectl("get", "nodes", check=False)
    assert "Forbidden" in refused.stderr
    assert run("rk", "token", "delete", made.token).stdout == f"token {token_id} deleted\n"
    assert "Unauthorized" in made.kubectl("get", "csr", check=False).stderr
    assert "there is no token" in run("rk", "token", "delete", token_id, check=False).stderr


def test_the_cluster_introduces_itself_signed_for_each_token(newcomer):
    token_id = newcomer.token.split(".")[0]
    url = f"{newcomer.server}/api/v1/namespaces/kube-public/configmaps/cluster-info"

    def signed():
        data = json.loads(run("curl", "-s", "--cacert", newcomer.ca, url).stdout)["data"]
        return data if f"jws-kubeconfig-{token_id}" in data else None
    data = lab.eventually("the signature", signed, 20)
    assert newcomer.server in data["kubeconfig"]


def test_a_name_belongs_to_one_key_until_the_node_is_deleted(newcomer):
    first = newcomer.join("edge", "first")
    node = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}})
    newcomer.kubectl("create", "-f", "-", who=first, input=node)
    # A thief with the token: neither this name nor the server's.
    condition, _ = newcomer.ask("edge", "thief")
    assert (condition["type"], condition["reason"]) == ("Denied", "NodeNameTaken")
    assert "kubectl delete node edge" in condition["message"]
    server_node = next(n["metadata"]["name"] for n in lab.get("nodes")["items"] if n["metadata"]["name"] != "edge")
    assert newcomer.ask(server_node, "thief")[0]["reason"] == "NodeNameTaken"
    # The node renews, and both of its certificates are good until the next time.
    condition, certificate = newcomer.ask("edge", "second", who=first)
    assert condition["message"].startswith("Auto approving self kubelet client certificate")
    renewed = newcomer.folder / "renewed.crt"
    renewed.write_text(certificate)
    second = [f"--client-certificate={renewed}", f"--client-key={newcomer.key('second')}"]
    for who in (first, second):
        newcomer.kubectl("get", "node", "edge", who=who)
    # The way out; then the name is another machine's, and the old ones are out.
    old_watch = subprocess.Popen(newcomer.command("get", "services", "-A", "--watch", who=first), stdout=subprocess.DEVNULL)
    time.sleep(1)
    assert old_watch.poll() is None
    kubectl("delete", "node", "edge")
    lab.eventually("the record's end", lambda: "NotFound" in lab.refused("get", "-n", "kube-system", "configmap", "edge.node-key"), 20)
    third = newcomer.join("edge", "third")
    newcomer.kubectl("create", "-f", "-", who=third, input=node)
    for who in (first, second):
        assert "Unauthorized" in newcomer.kubectl("get", "node", "edge", who=who, check=False).stderr
    old_watch.wait(20)


def test_a_node_reads_its_own_and_asks_for_nobody_else(newcomer):
    who = newcomer.join("edge-2", "own")
    newcomer.kubectl("create", "-f", "-", who=who, input=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-2"}}))
    newcomer.kubectl("get", "services,endpointslices,nodes", "-A", who=who)
    for args in (["get", "secrets", "-A"], ["get", "pods", "-A"], ["get", "configmaps", "-n", "kube-system"],
                 ["get", "--raw", "/api/v1/namespaces/kube-system/secrets?fieldSelector=type!%3Dx%5C,metadata.name%3Dx"]):
        assert "Forbidden" in newcomer.kubectl(*args, who=who, check=False).stderr, args
    newcomer.kubectl("get", "pods", "-A", "--field-selector=spec.nodeName=edge-2", who=who)
    csr = run("openssl", "req", "-new", "-key", newcomer.key("own"), "-subj", "/O=system:nodes/CN=system:node:edge").stdout
    request = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "x-"},
               "spec": {"request": base64.b64encode(csr.encode()).decode(), "usages": ["digital signature", "client auth"],
                        "signerName": "kubernetes.io/kube-apiserver-client-kubelet"}}
    refused = newcomer.kubectl("create", "-f", "-", who=who, input=json.dumps(request), check=False)
    assert "can only create a node CSR with CN=system:node:edge-2" in refused.stderr
