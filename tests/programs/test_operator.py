"""An operator made with controller-runtime: two versions and their conversion, webhooks, a leader, a cache, owned objects, a finalizer."""
import base64
import json

import build
import lab
import programs
import pytest
from lab import eventually, run

FOLDER = lab.ROOT / "tests/programs/operator"
NAMESPACE = "site-operator"
SITE = {
    "apiVersion": "web.example.com/v1", "kind": "Site", "metadata": {"name": "home", "namespace": "default"},
    "spec": {"pages": {"index.html": "welcome"}},
}


def certificate(folder):
    """An authority and a certificate of the webhooks' Service, in base64 as manifests have them."""
    def at(name):
        return folder / name

    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    run(*new, "-subj", "/CN=authority", "-keyout", at("ca.key"), "-out", at("ca.crt"))
    run(*new, "-subj", "/CN=webhooks", "-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-keyout", at("tls.key"), "-out", at("tls.crt"),
        "-addext", f"subjectAltName=DNS:webhooks.{NAMESPACE}.svc", "-addext", "basicConstraints=critical,CA:false")
    return {word: base64.b64encode(at(file).read_bytes()).decode()
            for word, file in (("CA_BUNDLE", "ca.crt"), ("TLS_CRT", "tls.crt"), ("TLS_KEY", "tls.key"))}


@pytest.fixture(scope="module")
def operator(cluster, tmp_path_factory):
    try:
        program = programs.operator()
    except build.NotBuilt as why:
        pytest.skip(f"the operator is not built: {why}")
    folder = tmp_path_factory.mktemp("operator")
    cluster.program_image(folder / "image", "rk.local/operator:1", {"operator": program})
    words = certificate(folder)
    for file in ("crd.yaml", "manifests.yaml"):
        text = (FOLDER / file).read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        cluster.apply(text)
    cluster.kubectl("wait", "crd/sites.web.example.com", "--for=condition=Established", "--timeout=60s")
    cluster.rollout(NAMESPACE, "deployment/operator")
    yield cluster
    cluster.kubectl("delete", "sites.web.example.com", "--all", "--timeout=60s")
    cluster.kubectl("delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "site-operator")
    cluster.kubectl("delete", "-f", FOLDER / "crd.yaml", "--timeout=60s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")


def make(cluster, name="home", spec=None, **metadata):
    site = {**SITE, "metadata": {"name": name, "namespace": "default", **metadata}, "spec": {**SITE["spec"], **(spec or {})}}
    cluster.apply(json.dumps(site))


def ready(cluster, name):
    cluster.kubectl("wait", f"site/{name}", "--for=condition=Ready", "--timeout=90s")
    return cluster.get("site", name)


def ledger(cluster):
    return cluster.get("configmap", "ledger", "-n", NAMESPACE).get("data", {})


def served(cluster, name, page):
    pod = cluster.get("pods", "-l", f"web.example.com/site={name}")["items"][0]
    return cluster.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}:8080/proxy/{page}")


def test_a_site_comes_alive_and_follows_its_spec(operator):
    make(operator)
    site = ready(operator, "home")
    assert site["spec"]["replicas"] == 1 and site["spec"]["image"] == lab.DEMO_IMAGE
    assert site["metadata"]["annotations"]["web.example.com/author"] == "system:admin"
    assert site["metadata"]["finalizers"] == ["web.example.com/ledger"]
    assert site["status"]["observedGeneration"] == site["metadata"]["generation"]
    assert served(operator, "home", "index.html") == "welcome"
    for owned in (("configmap", "home-pages"), ("deployment", "home")):
        owner = operator.get(*owned)["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (site["metadata"]["uid"], True, True)
    assert ledger(operator)["default.home"] == "1 pages, 1 replicas"
    managers = {(m["manager"], m["operation"], m.get("subresource")) for m in operator.get("site", "home", "--show-managed-fields")["metadata"]["managedFields"]}
    assert ("operator", "Update", "status") in managers, managers
    columns = operator.kubectl("get", "site", "home", "-o", "wide").splitlines()
    assert columns[0].split() == ["NAME", "WANTED", "READY", "THEME"] and columns[1].split()[:3] == ["home", "1", "True"]

    # What is owned and goes comes back; what is changed is put right.
    operator.kubectl("delete", "deployment", "home")
    operator.kubectl("patch", "configmap", "home-pages", "--type=merge", "-p", '{"data":{"index.html":"defaced"}}')
    eventually("the page as it was", lambda: operator.get("configmap", "home-pages")["data"]["index.html"] == "welcome")
    eventually("the deployment", lambda: operator.kubectl("get", "deployment", "home", "--ignore-not-found"))

    operator.kubectl("scale", "site", "home", "--replicas=2")
    eventually("two replicas", lambda: operator.get("site", "home")["status"]["readyReplicas"] == 2)
    reasons = eventually("events", lambda: {"Pages", "Serving"} <= {
        e["reason"] for e in operator.get("events.events.k8s.io", "--field-selector", "regarding.name=home,regarding.kind=Site")["items"]})
    assert reasons
    assert "Serving" in operator.kubectl("describe", "site", "home")


def test_webhooks_default_refuse_and_warn(operator):
    refused = operator.refused("apply", "-f", "-", input=json.dumps({**SITE, "metadata": {"name": "bad"}, "spec": {"pages": {}}}))
    assert 'admission webhook "validate.web.example.com" denied the request: Site.web.example.com "bad" is invalid: ' \
           "spec.pages[index.html]: Required value: a site begins somewhere" in refused
    refused = operator.refused("apply", "-f", "-", input=json.dumps({**SITE, "metadata": {"name": "bad"}, "spec": {"pages": {"a.txt": ""}}}))
    assert "a page is HTML" in refused
    blinking = json.dumps({**SITE, "metadata": {"name": "blinking"}, "spec": {"pages": {"index.html": "<blink>", "a.html": "a"}, "replicas": 0}})
    done = operator.on("hub", "kubectl", "apply", "--dry-run=server", "-f", "-", input=blinking)
    assert "Warning: page index.html blinks" in done.stderr
    assert operator.kubectl("get", "site", "blinking", "--ignore-not-found") == ""
    make(operator, "kept", {"replicas": 0}, labels={"keep": "true"})
    assert "the site is kept" in operator.refused("delete", "site", "kept")
    operator.kubectl("label", "site", "kept", "keep-")
    operator.kubectl("delete", "site", "kept", "--timeout=60s")


def test_both_versions_are_one_object(operator):
    old = {"apiVersion": "web.example.com/v1beta1", "kind": "Site", "metadata": {"name": "old", "namespace": "default"},
           "spec": {"index": "old page", "size": "medium"}}
    done = operator.on("hub", "kubectl", "apply", "-f", "-", input=json.dumps(old))
    assert "Warning: web.example.com/v1beta1 Site goes; use v1" in done.stderr
    site = ready(operator, "old")
    assert (site["apiVersion"], site["spec"]["replicas"], site["spec"]["pages"]) == ("web.example.com/v1", 2, {"index.html": "old page"})
    # A request in the old version meets the webhooks of the new one.
    assert site["metadata"]["annotations"]["web.example.com/author"] == "system:admin"
    operator.kubectl("patch", "site", "old", "--type=merge", "-p", '{"spec":{"pages":{"more.html":"more"},"replicas":1}}')
    seen = operator.get("sites.v1beta1.web.example.com", "old")
    assert seen["spec"] == {"index": "old page", "size": "small", "image": lab.DEMO_IMAGE}
    assert seen["metadata"]["annotations"]["web.example.com/pages.more.html"] == "more"
    old["spec"]["index"] = "new page"
    operator.apply(json.dumps(old))
    site = operator.get("site", "old")
    assert site["spec"]["pages"] == {"index.html": "new page", "more.html": "more"}
    assert {s["metadata"]["name"] for s in operator.get("sites.v1beta1.web.example.com")["items"]} >= {"old"}
    old["spec"]["size"] = "huge"
    assert 'there is no size "huge"' in operator.refused("apply", "-f", "-", input=json.dumps(old))
    old["spec"]["size"] = "small"
    applied = operator.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=elder", "-f", "-", "-o", "json", input=json.dumps(old))
    assert json.loads(applied)["spec"]["size"] == "small"
    operator.kubectl("apply", "--server-side", "--field-manager=younger", "-f", "-", input=json.dumps(
        {**SITE, "metadata": {"name": "old", "namespace": "default"}, "spec": {"pages": {"third.html": "3"}}}))
    assert set(operator.get("site", "old")["spec"]["pages"]) == {"index.html", "more.html", "third.html"}
    operator.kubectl("delete", "sites.v1beta1.web.example.com", "old", "--timeout=60s")


def test_a_theme_is_found_by_index_and_field_selector(operator):
    operator.kubectl("create", "configmap", "dark", "--from-literal=theme.html=dark")
    make(operator, "themed", {"theme": "dark"})
    ready(operator, "themed")
    assert served(operator, "themed", "theme.html") == "dark"
    assert operator.kubectl("get", "sites", "--field-selector", "spec.theme=dark", "-o", "name") == "site.web.example.com/themed\n"
    operator.kubectl("patch", "configmap", "dark", "--type=merge", "-p", '{"data":{"theme.html":"darker"}}')
    eventually("the theme's new text", lambda: served(operator, "themed", "theme.html") == "darker")
    refused = operator.refused("patch", "site", "themed", "--type=merge", "-p", '{"spec":{"theme":"light"}}')
    assert 'spec.theme: Invalid value: "light": field is immutable' in refused
    operator.kubectl("delete", "site", "themed", "--timeout=60s")
    operator.kubectl("delete", "configmap", "dark")


def test_what_a_site_owned_goes_with_it(operator):
    make(operator, "short")
    ready(operator, "short")
    operator.kubectl("delete", "site", "short", "--cascade=foreground", "--timeout=90s")
    assert "default.short" not in ledger(operator)
    assert operator.kubectl("get", "deployment,configmap,pod", "-l", "web.example.com/site=short", "-o", "name") == ""
    assert operator.kubectl("get", "deployment/short", "configmap/short-pages", "--ignore-not-found") == ""


def test_the_other_one_takes_the_lead(operator):
    def leader():
        return operator.get("lease", "site-operator", "-n", NAMESPACE)["spec"]["holderIdentity"]

    first = leader()
    operator.kubectl("delete", "pod", "-n", NAMESPACE, first.split("_")[0], "--force", "--grace-period=0")
    make(operator, "after", {"replicas": 0})
    ready(operator, "after")
    assert leader() != first
    assert operator.get("lease", "site-operator", "-n", NAMESPACE)["spec"]["leaseTransitions"] >= 1
    operator.rollout(NAMESPACE, "deployment/operator")


def test_metrics_are_for_those_who_may(operator):
    pod = operator.get("pods", "-n", NAMESPACE, "-l", "app=site-operator", "--field-selector=status.phase=Running")["items"][0]

    def metrics(*words):
        url = f"https://{pod['status']['podIP']}:8443/metrics"
        return operator.on("server-1", "curl", "-sk", "-w", "%{http_code}", url, *words).stdout

    def bearer(account):
        operator.kubectl("create", "serviceaccount", account)
        return "-H", "Authorization: Bearer " + operator.kubectl("create", "token", account).strip()

    assert metrics().endswith("401")
    assert metrics(*bearer("stranger")).endswith("403")
    operator.kubectl("create", "clusterrolebinding", "scraper", "--clusterrole=metrics-reader", "--serviceaccount=default:scraper")
    assert "leader_election_master_status" in metrics(*bearer("scraper"))
    operator.kubectl("delete", "serviceaccount", "stranger", "scraper")
