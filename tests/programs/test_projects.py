"""Well-known projects, installed and used as their own first example has it. Their programs are large: one of them a day, all with RK_TEST_ALL=1."""
import base64
import contextlib
import json
import shutil

import build
import lab
import programs
import pytest
from lab import eventually, run


def project(name):
    """Marks a test of one project."""
    return pytest.mark.skipif(not programs.is_due(name), reason=f"today is the day of {programs.TODAY}; RK_TEST_ALL=1 runs {name}, too")


def built(make, *words):
    try:
        return make(*words)
    except build.NotBuilt as why:
        pytest.skip(f"{words[0]} is not built: {why}")


def to_image(text, **images):
    """A manifest with images of ours; all are on the node already."""
    for theirs, ours in images.values():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text


@project("prometheus-operator")
def test_prometheus_operator(cluster, tmp_path):
    made, source = built(programs.project, "prometheus-operator")
    version = programs.PROJECTS["prometheus-operator"][1]
    ours = {"operator": "rk.local/prometheus-operator:1", "reloader": "rk.local/prometheus-config-reloader:1"}
    cluster.program_image(tmp_path / "operator", ours["operator"], {"operator": made["prometheus-operator"]})
    cluster.program_image(tmp_path / "reloader", ours["reloader"], {"bin/prometheus-config-reloader": made["prometheus-config-reloader"]})
    bundle = to_image(
        (source / "bundle.yaml").read_text(), operator=(f"quay.io/prometheus-operator/prometheus-operator:{version}", ours["operator"]),
        reloader=(f"quay.io/prometheus-operator/prometheus-config-reloader:{version}", ours["reloader"]))
    # Ten definitions, the largest of 600 kB, in one file, at once.
    cluster.kubectl("create", "-f", "-", input=bundle)
    try:
        cluster.rollout("default", "deployment/prometheus-operator")
        prometheus_lives(cluster)
    finally:
        cluster.kubectl("delete", "prometheuses,servicemonitors,prometheusrules", "--all", "--ignore-not-found", "--timeout=60s", check=False)
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--timeout=60s", input=bundle)


def prometheus_lives(cluster):
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "example-app", "labels": {"team": "frontend"}},
               "spec": {"selector": {"matchLabels": {"app": "example-app"}}, "endpoints": [{"port": "web"}]}}
    # A stand-in serves in place of the real program, which is not to be had here; all around it is the operator's.
    serve = "mkdir -p /prometheus/www/-; cd /prometheus/www/-; touch ready healthy; exec httpd -f -p 9090 -h /prometheus/www"
    stand_in = {"name": "prometheus", "command": ["sh", "-c", serve]}
    prometheus = {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": "prometheus"}, "spec": {
        "replicas": 1, "image": lab.DEMO_IMAGE, "imagePullPolicy": "IfNotPresent", "serviceMonitorSelector": {"matchLabels": {"team": "frontend"}},
        "resources": {"requests": {"memory": "40Mi"}}, "containers": [stand_in], "terminationGracePeriodSeconds": 1}}
    for thing in (monitor, prometheus):
        cluster.apply(json.dumps(thing))
    eventually("the StatefulSet", lambda: cluster.kubectl("get", "statefulset/prometheus-prometheus", "--ignore-not-found"))
    cluster.rollout("default", "statefulset/prometheus-prometheus")
    cluster.kubectl("wait", "prometheus/prometheus", "--for=condition=Available", "--timeout=60s")
    owner = cluster.get("statefulset", "prometheus-prometheus")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Prometheus", "prometheus", True)
    assert cluster.get("service", "prometheus-operated")["spec"]["clusterIP"] == "None"
    pod = ("exec", "prometheus-prometheus-0", "-c", "prometheus", "--")
    assert "serviceMonitor/default/example-app/0" in cluster.kubectl(*pod, "cat", "/etc/prometheus/config_out/prometheus.env.yaml")
    # A rule comes to the running pod by a ConfigMap that its volume shows.
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "example", "labels": {"role": "alert"}},
            "spec": {"groups": [{"name": "a", "rules": [{"alert": "Always", "expr": "vector(1)"}]}]}}
    cluster.apply(json.dumps(rule))
    cluster.kubectl("patch", "prometheus", "prometheus", "--type=merge", "-p", '{"spec":{"ruleSelector":{"matchLabels":{"role":"alert"}}}}')
    eventually("the rule in the pod", lambda: "Always" in cluster.kubectl(*pod, "sh", "-c", "cat /etc/prometheus/rules/*/*"))
    cluster.kubectl("scale", "prometheus/prometheus", "--replicas=2")
    # The scale of a Prometheus is the number of its shards.
    eventually("two", lambda: cluster.get("prometheus", "prometheus")["status"].get("availableReplicas") == 2)
    header, line = cluster.kubectl("get", "prometheus").splitlines()
    assert header.split() == ["NAME", "VERSION", "DESIRED", "READY", "RECONCILED", "AVAILABLE", "AGE"]
    assert line.split()[1:5] == ["1", "2", "True", "True"], line
    refused = cluster.refused("patch", "prometheus", "prometheus", "--type=merge", "-p", '{"spec":{"scrapeInterval":"soon"}}')
    assert 'spec.scrapeInterval in body should match' in refused
    cluster.kubectl("delete", "prometheus", "prometheus", "--cascade=foreground", "--timeout=60s")
    assert cluster.kubectl("get", "statefulset", "prometheus-prometheus", "--ignore-not-found") == ""


CERTIFICATES = """
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: selfsigned}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: authority, namespace: sandbox}
spec:
  isCA: true
  commonName: authority
  secretName: root-secret
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: selfsigned, kind: ClusterIssuer, group: cert-manager.io}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: authority, namespace: sandbox}
spec: {ca: {secretName: root-secret}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: sandbox}
spec:
  secretName: web-tls
  dnsNames: [web.sandbox.svc]
  issuerRef: {name: authority}
"""


@project("cert-manager")
def test_cert_manager(cluster, tmp_path):
    made, source = built(programs.project, "cert-manager")
    for name, program in made.items():
        cluster.program_image(tmp_path / name, f"rk.local/{name}:1", {name: program})
    chart = certificates_chart(source, tmp_path / "chart")
    settings = ["installCRDs=true", "startupapicheck.enabled=false", "cainjector.image.repository=rk.local/cert-manager-cainjector", "cainjector.image.tag=1"]
    settings += ["image.repository=rk.local/cert-manager-controller", "image.tag=1", "webhook.image.repository=rk.local/cert-manager-webhook", "webhook.image.tag=1"]
    with installed(cluster, tmp_path, "cert-manager", chart, "cert-manager", settings):
        try:
            certificates_live(cluster)
        finally:
            cluster.kubectl("delete", "namespace", "sandbox", "--ignore-not-found", "--timeout=60s")
            cluster.kubectl("delete", "clusterissuers", "--all", "--timeout=60s", check=False)
    cluster.kubectl("delete", "namespace", "cert-manager", "--timeout=60s")


@contextlib.contextmanager
def installed(cluster, folder, name, chart, namespace, settings):
    """A chart's release, made with helm 3, as most are."""
    folders = [f"HELM_{kind}_HOME={folder}/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")]
    helm = built(programs.helm, "helm3")
    words = [word for setting in settings for word in ("--set", setting)]

    def call(*words):
        cluster.on("hub", "env", *folders, helm, "--namespace", namespace, *words, "--wait", "--timeout", "180s")

    call("install", name, chart, "--create-namespace", *words)
    try:
        yield
    finally:
        call("uninstall", name)


def certificates_chart(source, folder):
    """The chart as it is published: with the definitions, and a version."""
    shutil.copytree(source / "deploy/charts/cert-manager", folder)
    run("chmod", "-R", "u+w", folder)
    (folder / "Chart.template.yaml").rename(folder / "Chart.yaml")
    for file in (source / "deploy/crds").glob("*.yaml"):
        (folder / "templates" / file.name).write_text("{{- if .Values.installCRDs }}\n" + file.read_text() + "\n{{- end }}\n")
    return folder


def certificates_live(cluster):
    # The injector gives the webhooks' configurations the authority of the webhook, which made it itself.
    eventually("the authority", lambda: cluster.get("validatingwebhookconfiguration", "cert-manager-webhook")["webhooks"][0]["clientConfig"].get("caBundle"))
    cluster.kubectl("create", "namespace", "sandbox")
    eventually("what is applied", lambda: cluster.apply(CERTIFICATES), timeout=60)
    cluster.kubectl("wait", "certificate", "--all", "-n", "sandbox", "--for=condition=Ready", "--timeout=120s")
    secret = cluster.get("secret", "web-tls", "-n", "sandbox")
    assert secret["type"] == "kubernetes.io/tls" and set(secret["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert "DNS:web.sandbox.svc" in certificate(secret) and "Issuer: CN = authority" in certificate(secret).replace("CN=", "CN = ")
    header, line = cluster.kubectl("get", "certificate", "web", "-n", "sandbox").splitlines()
    assert header.split() == ["NAME", "READY", "SECRET", "AGE"] and line.split()[:3] == ["web", "True", "web-tls"]
    events = cluster.kubectl("events", "-n", "sandbox", "--for", "certificate/web")
    assert all(reason in events for reason in ("Issuing", "Generated", "Requested"))

    # Renewal: what is close to its end is issued anew, and so is what has other names now.
    first = cluster.get("certificate", "web", "-n", "sandbox")["status"]
    assert first["revision"] == 1
    cluster.kubectl("patch", "certificate", "web", "-n", "sandbox", "--type=merge", "-p", '{"spec":{"dnsNames":["web.sandbox.svc","other.sandbox.svc"]}}')
    eventually("the second certificate", lambda: cluster.get("certificate", "web", "-n", "sandbox")["status"]["revision"] == 2)
    assert "DNS:other.sandbox.svc" in certificate(cluster.get("secret", "web-tls", "-n", "sandbox"))
    cluster.kubectl("delete", "secret", "web-tls", "-n", "sandbox")
    eventually("the third certificate", lambda: cluster.get("certificate", "web", "-n", "sandbox")["status"]["revision"] == 3)
    refused = cluster.refused("patch", "certificate", "web", "-n", "sandbox", "--type=merge", "-p", '{"spec":{"duration":"1m"}}')
    assert 'admission webhook "webhook.cert-manager.io" denied the request: spec.duration: Invalid value' in refused


def certificate(secret):
    return run("openssl", "x509", "-noout", "-text", input=base64.b64decode(secret["data"]["tls.crt"]).decode()).stdout


@project("sealed-secrets")
def test_sealed_secrets(cluster, tmp_path):
    made, source = built(programs.project, "sealed-secrets")
    cluster.program_image(tmp_path / "controller", "rk.local/sealed-secrets:own", {"usr/local/bin/controller": made["sealed-secrets-controller"]})
    settings = ["fullnameOverride=sealed-secrets-controller", "image.registry=rk.local", "image.repository=sealed-secrets", "image.tag=own"]
    with installed(cluster, tmp_path, "sealed-secrets", source / "helm/sealed-secrets", "kube-system", settings):
        try:
            secrets_are_sealed(cluster, made["kubeseal"])
        finally:
            cluster.kubectl("delete", "sealedsecrets", "--all", "--timeout=60s", check=False)
    # helm leaves a chart's definitions behind.
    cluster.kubectl("delete", "crd", "sealedsecrets.bitnami.com", "--timeout=60s")
    cluster.kubectl("delete", "secrets", "-n", "kube-system", "-l", "sealedsecrets.bitnami.com/sealed-secrets-key")


def secrets_are_sealed(cluster, kubeseal):
    def seal(text, *words):
        return cluster.on("hub", kubeseal, "-o", "yaml", *words, input=text).stdout

    secret = cluster.kubectl("create", "secret", "generic", "mysecret", "--dry-run=client", "--from-literal=foo=bar", "-o", "json")
    # kubeseal reads the controller's certificate through the API server's proxy of its Service.
    sealed = seal(secret)
    assert "kind: SealedSecret" in sealed and base64.b64encode(b"bar").decode() not in sealed
    cluster.kubectl("create", "-f", "-", input=sealed)

    def value():
        found = cluster.kubectl("get", "secret", "mysecret", "--ignore-not-found", "-o", "jsonpath={.data.foo}")
        return base64.b64decode(found).decode()

    eventually("the secret", lambda: value() == "bar")
    cluster.kubectl("wait", "sealedsecret/mysecret", "--for=condition=Synced", "--timeout=60s")
    owner = cluster.get("secret", "mysecret")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("SealedSecret", "mysecret", True)
    header, line = cluster.kubectl("get", "sealedsecrets").splitlines()
    assert header.split() == ["NAME", "STATUS", "SYNCED", "AGE"] and line.split()[:2] == ["mysecret", "True"], line
    cluster.on("hub", kubeseal, "--validate", input=sealed)

    # A changed one is unsealed anew; one that was sealed for another name is not.
    changed = cluster.kubectl("create", "secret", "generic", "mysecret", "--dry-run=client", "--from-literal=foo=other", "-o", "json")
    cluster.apply(seal(changed))
    eventually("the other secret", lambda: value() == "other")
    cluster.kubectl("create", "-f", "-", input=sealed.replace("name: mysecret", "name: stolen"))
    eventually("the refusal", lambda: "no key could decrypt secret" in cluster.kubectl("get", "sealedsecret", "stolen", "-o", "yaml"))
    assert cluster.kubectl("get", "secret", "stolen", "--ignore-not-found") == ""
    assert "ErrUnsealFailed" in cluster.kubectl("events", "--for", "sealedsecret/stolen")
    cluster.kubectl("delete", "sealedsecret", "mysecret")
    eventually("the secret is gone", lambda: not cluster.kubectl("get", "secret", "mysecret", "--ignore-not-found"))
