"""Who may, from outside: tokens of an issuer of the tests' own, and a webhook that decides."""
import base64
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

import lab
from lab import run
from machines import server_alone

PORT = 9443
ISSUER = f"https://localhost:{PORT}"


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Keys and tokens by openssl; what its server publishes is in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
        run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
            "-keyout", folder / "tls.key", "-out", folder / "tls.csr")
        (folder / "ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        run("openssl", "x509", "-req", "-in", folder / "tls.csr", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-days", "2",
            "-extfile", folder / "ext", "-out", folder / "tls.crt")
        (folder / "discovery.json").write_text(json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}))
        (folder / "access.json").write_text("{}")
        for name in ("one", "two"):
            run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder / f"{name}.pem")
        self.publish("one")

    def publish(self, *names):
        def jwk(name):
            modulus = run("openssl", "rsa", "-in", self.folder / f"{name}.pem", "-noout", "-modulus").stdout.strip().split("=")[1]
            return {"kty": "RSA", "use": "sig", "kid": name, "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}
        new = self.folder / "keys.new"
        new.write_text(json.dumps({"keys": [jwk(name) for name in names]}))
        new.rename(self.folder / "keys.json")

    def token(self, key="one", header=None, **claims):
        claims = {"iss": ISSUER, "aud": "rk", "exp": int(time.time()) + 3600, "sub": "42", **claims}
        signed = f"{b64(header or {'alg': 'RS256', 'kid': key})}.{b64(claims)}"
        done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.folder / f"{key}.pem"], input=signed.encode(), capture_output=True, check=True)
        return f"{signed}.{b64(done.stdout)}"

    def configuration(self, **more):
        issuer = {"url": ISSUER, "audiences": ["rk"], "certificateAuthority": (self.folder / "ca.crt").read_text()}
        entry = {
            "issuer": issuer,
            "claimValidationRules": [{"expression": "claims.?hd.orValue('') == 'example.com'", "message": "only people of example.com"}],
            "claimMappings": {
                "username": {"expression": "'people:' + claims.sub"},
                "groups": {"claim": "roles", "prefix": "role:"},
                "extra": [{"key": "example.com/mail", "valueExpression": "claims.?mail.orValue('')"}]},
            "userValidationRules": [{"expression": "!user.groups.exists(g, g.startsWith('system:'))"}]}
        return json.dumps({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [entry], **more})


@pytest.fixture(scope="module")
def machines():
    with server_alone("access") as made:
        yield made


@pytest.fixture(scope="module")
def issuer(machines, tmp_path_factory):
    made = Issuer(tmp_path_factory.mktemp("issuer"))
    script = pathlib.Path(__file__).with_name("issuer.py")
    command = [os.environ["XTASK"], "lab", "exec", "--name", machines.name, "server-1", "--", sys.executable, script, made.folder, str(PORT)]
    server = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL)
    yield made
    server.terminate()
    server.wait()


def ask(machines, token, path="/apis/authentication.k8s.io/v1/selfsubjectreviews", body="{}"):
    """Code and answer."""
    data = ["-d", body, "-H", "Content-Type: application/json"] if body else []
    url = f"https://{machines.address('server-1')}:6443{path}"
    out = machines.on("hub", "curl", "-sk", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {token}", *data, url).stdout
    text, _, code = out.rpartition("\n")
    return int(code), json.loads(text)


def whoami(machines, token):
    code, answer = ask(machines, token)
    return answer["status"]["userInfo"] if code == 201 else code


def metric(machines, wanted):
    lines = machines.kubectl("get", "--raw", "/metrics").splitlines()
    return [float(line.split()[-1]) for line in lines if all(part in line for part in wanted)]


def test_people_of_an_issuer_come_in_with_their_groups(machines, issuer):
    file = issuer.folder / "authentication.yaml"
    file.write_text(issuer.configuration())
    machines.restart(**{"authentication-config": str(file)})
    good = issuer.token(hd="example.com", roles=["dev"], mail="j@example.com")
    user = lab.eventually("the issuer's keys", lambda: isinstance(found := whoami(machines, good), dict) and found)
    assert user["username"] == "people:42" and user["groups"] == ["role:dev", "system:authenticated"]
    assert user["extra"]["example.com/mail"] == ["j@example.com"]

    pods = "/api/v1/namespaces/default/pods"
    code, answer = ask(machines, good, pods, None)
    assert code == 403 and answer["message"] == (
        'pods is forbidden: User "people:42" cannot list resource "pods" in API group "" in the namespace "default"')
    machines.kubectl("create", "rolebinding", "dev", "--clusterrole=view", "--group=role:dev")
    assert lab.eventually("the binding", lambda: ask(machines, good, pods, None)[0] == 200)


def test_other_tokens_open_nothing(machines, issuer):
    now = int(time.time())
    bad = {
        "expired": issuer.token(hd="example.com", exp=now - 5),
        "not yet valid": issuer.token(hd="example.com", nbf=now + 600),
        "for another audience": issuer.token(hd="example.com", aud="vault"),
        "of a foreign issuer": issuer.token(hd="example.com", iss="https://elsewhere.example"),
        "with a foreign key": issuer.token("two", hd="example.com"),
        "of the wrong people": issuer.token(hd="other.com"),
        "with a bent signature": issuer.token(hd="example.com")[:-4] + "AAAA",
        "unsigned": ".".join([b64({"alg": "none"}), b64({"iss": ISSUER, "aud": "rk", "exp": now + 60, "sub": "42", "hd": "example.com"}), ""]),
        "signed with what everybody knows": issuer.token(header={"alg": "HS256", "kid": "one"}, hd="example.com"),
    }
    for what, token in bad.items():
        assert whoami(machines, token) == 401, what


def test_keys_are_rotated_and_the_file_changes_while_people_work(machines, issuer):
    file = issuer.folder / "authentication.yaml"
    good = issuer.token(hd="example.com")
    stop, failures, served = threading.Event(), [], [0]

    def work():
        while not stop.is_set():
            answer = whoami(machines, good)
            served[0] += 1
            if not isinstance(answer, dict):
                failures.append(answer)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        issuer.publish("one", "two")
        assert isinstance(lab.eventually("the new key", lambda: whoami(machines, issuer.token("two", hd="example.com"))), dict)
        for bad in ("kind: Pod", "{", issuer.configuration(anonymous={"enabled": False})):
            before = sum(metric(machines, ["authentication_config_controller_automatic_reloads_total", 'status="failure"']))
            file.write_text(bad)
            lab.eventually("the bad file is counted", lambda: sum(
                metric(machines, ["authentication_config_controller_automatic_reloads_total", 'status="failure"'])) > before)
        assert "the config stays as it was" in machines.log("server-1")
        file.write_text(issuer.configuration())
        time.sleep(0.5)
    finally:
        stop.set()
        worker.join()
    assert not failures and served[0] > 3, (failures, served)
    issuer.publish("two")
    # Asking with a key id that nobody has makes the server look, and so forget.
    whoami(machines, issuer.token("two", header={"alg": "RS256", "kid": "stranger"}, hd="example.com"))
    lab.eventually("the old key is forgotten", lambda: whoami(machines, issuer.token("one", hd="example.com")) == 401)
    assert isinstance(whoami(machines, issuer.token("two", hd="example.com")), dict)
    file.write_text('{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []}')
    lab.eventually("the issuer is forgotten", lambda: whoami(machines, issuer.token("two", hd="example.com")) == 401)


def test_flags_of_kube_apiserver_say_the_same(machines, issuer):
    issuer.publish("one")
    arguments = [f"oidc-issuer-url={ISSUER}", "oidc-client-id=rk", f"oidc-ca-file={issuer.folder}/ca.crt", "oidc-username-claim=email",
                 "oidc-groups-claim=groups", "oidc-groups-prefix=oidc:", "oidc-required-claim=hd=example.com"]
    machines.restart(**{"kube-apiserver-arg": arguments})
    token = issuer.token(email="j@example.com", email_verified=True, groups="dev", hd="example.com")
    user = lab.eventually("the issuer's keys", lambda: isinstance(found := whoami(machines, token), dict) and found)
    assert (user["username"], user["groups"]) == ("j@example.com", ["oidc:dev", "system:authenticated"])
    assert whoami(machines, issuer.token(email="j@example.com", email_verified=False, hd="example.com")) == 401
    assert whoami(machines, issuer.token(email="j@example.com", hd="other.com")) == 401
    done = machines.on("server-1", "rk", "server", "--kube-apiserver-arg=feature-gates=A=true", check=False)
    assert done.returncode == 64 and "rk has no kube-apiserver flag \"feature-gates\"" in done.stderr


def test_a_webhook_decides_in_its_turn(machines, issuer):
    kubeconfig = issuer.folder / "webhook.kubeconfig"
    kubeconfig.write_text(json.dumps({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "h", "user": ""}}],
        "clusters": [{"name": "h", "cluster": {"server": f"{ISSUER}/access", "certificate-authority": "ca.crt"}}]}))
    hook = {"timeout": "3s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
            "authorizedTTL": "1s", "unauthorizedTTL": "1s", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": str(kubeconfig)},
            "matchConditions": [{"expression": "request.user.startsWith('people:')"}]}
    own = [{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]
    def order(authorizers):
        return json.dumps({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers})
    access, authentication = issuer.folder / "authorization.yaml", issuer.folder / "authentication.yaml"
    access.write_text(order([*own, {"type": "Webhook", "name": "hook", "webhook": hook}]))
    authentication.write_text(issuer.configuration())
    machines.restart(**{"authentication-config": str(authentication), "authorization-config": str(access)})
    token = issuer.token(hd="example.com")
    lab.eventually("the issuer's keys", lambda: isinstance(whoami(machines, token), dict))
    secrets = "/api/v1/namespaces/default/secrets?labelSelector=a%3Db"
    code, answer = ask(machines, token, secrets, None)
    assert code == 403 and answer["message"].endswith('in the namespace "default": the webhook says so')
    (issuer.folder / "access.json").write_text(json.dumps({"people:42": ["list"]}))
    lab.eventually("the webhook's new mind", lambda: ask(machines, token, secrets, None)[0] == 200)
    asked = [json.loads(line)["spec"] for line in (issuer.folder / "reviews.log").read_text().splitlines()]
    assert {"people:42"} == {spec["user"] for spec in asked}
    about = next(spec["resourceAttributes"] for spec in asked if spec.get("resourceAttributes", {}).get("resource") == "secrets")
    assert about["labelSelector"]["requirements"] == [{"key": "a", "operator": "In", "values": ["b"]}]
    access.write_text(order(own))
    lab.eventually("the webhook is asked no more", lambda: ask(machines, token, secrets, None)[0] == 403)
