"""Services, DNS and Ingress as clients see them, and a rolling update that costs no request."""
import http.client
import threading
import time

import pytest
from lab import DEMO_IMAGE, eventually, get, kubectl, node_ip, remove_namespace, run

NS = "network-test"
WEB = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NS}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {NS}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
      - name: web
        image: {DEMO_IMAGE}
        command: ["/bin/sh", "-c", "mkdir -p /tmp/w; hostname > /tmp/w/index.html; trap 'sleep 3; exit 0' TERM; httpd -f -p 8080 -h /tmp/w & wait"]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {NS}}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http, nodePort: 30123}}]
---
apiVersion: v1
kind: Service
metadata: {{name: balanced, namespace: {NS}}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{port: 8899, targetPort: http}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: {NS}}}
spec:
  clusterIP: None
  selector: {{app: web}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: empty, namespace: {NS}}}
spec:
  ports: [{{port: 80}}]
  selector: {{app: nobody}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {NS}}}
spec:
  tls: [{{hosts: [web.test], secretName: web-tls}}]
  rules:
  - host: web.test
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {NS}}}
spec:
  containers: [{{name: c, image: {DEMO_IMAGE}, command: [sleep, "100000"]}}]
  terminationGracePeriodSeconds: 0
"""


@pytest.fixture(scope="module", autouse=True)
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=web.test",
        "-addext", "subjectAltName=DNS:web.test", "-keyout", folder / "key", "-out", folder / "crt")
    kubectl("apply", "-f", "-", input=WEB)
    kubectl("-n", NS, "create", "secret", "tls", "web-tls", f"--cert={folder}/crt", f"--key={folder}/key")
    kubectl("-n", NS, "rollout", "status", "deployment/web", "--timeout=120s")
    kubectl("-n", NS, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    yield folder
    remove_namespace(NS)


def names():
    return {p["metadata"]["name"] for p in get("pods", "-n", NS, "-l", "app=web")["items"]}


def inside(*command):
    return run("kubectl", "-n", NS, "exec", "client", "--", *command, check=False)


def test_service_by_name_and_address_from_a_pod():
    for host in ("web", f"web.{NS}", f"web.{NS}.svc.cluster.local", get("service", "web", "-n", NS)["spec"]["clusterIP"]):
        page = eventually(host, lambda: (lambda d: d.returncode == 0 and d.stdout.strip())(inside("wget", "-q", "-O", "-", f"http://{host}/")), 30)
        assert page in names()
    assert "10.43.0.1" in inside("nslookup", "kubernetes.default.svc.cluster.local").stdout
    assert inside("nslookup", "nonesuch.default.svc.cluster.local").returncode != 0


def test_headless_service_resolves_to_the_pods():
    ips = {p["status"]["podIP"] for p in get("pods", "-n", NS, "-l", "app=web")["items"]}
    answer = inside("nslookup", f"headless.{NS}.svc.cluster.local").stdout
    assert all(ip in answer for ip in ips)


def test_every_endpoint_gets_its_share():
    address = get("service", "web", "-n", NS)["spec"]["clusterIP"]
    seen = set()
    eventually("both pods", lambda: seen.add(run("curl", "-fsS", f"http://{address}/").stdout.strip()) or seen == names(), 60)


def test_node_port_and_load_balancer_from_the_host():
    assert run("curl", "-fsS", f"http://{node_ip()}:30123/").stdout.strip() in names()
    address = eventually("a load balancer address",
                         lambda: get("service", "balanced", "-n", NS)["status"]["loadBalancer"]["ingress"][0]["ip"])
    assert run("curl", "-fsS", f"http://{address}:8899/").stdout.strip() in names()


def test_a_pod_reaches_itself_through_its_service():
    name = sorted(names())[0]
    pages = {run("kubectl", "-n", NS, "exec", name, "--", "wget", "-q", "-O", "-", "http://web/").stdout.strip() for _ in range(12)}
    assert name in pages


def test_a_service_without_endpoints_refuses_at_once():
    began = time.monotonic()
    done = inside("wget", "-q", "-O", "-", "http://empty/")
    assert done.returncode != 0 and "refused" in done.stderr and time.monotonic() - began < 10


def test_ingress_by_host_with_tls(web):
    ip = node_ip()
    page = eventually("the route", lambda: run("curl", "-fsS", "--resolve", f"web.test:80:{ip}", "http://web.test/").stdout.strip())
    assert page in names()
    eventually("TLS", lambda: run("curl", "-fsS", "--cacert", web / "crt", "--resolve", f"web.test:443:{ip}", "https://web.test/").stdout.strip() in names())
    other = run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: other.test", f"http://{ip}/nowhere").stdout
    assert other in ("200", "404")  # the demo's Ingress takes every host
    assert eventually("status", lambda: get("ingress", "web", "-n", NS)["status"]["loadBalancer"]["ingress"][0]["ip"]) == ip


def test_a_rolling_update_fails_no_request():
    address, stop, counts, failures = node_ip(), threading.Event(), [0], []

    def client():
        while not stop.is_set():
            try:
                connection = http.client.HTTPConnection(address, 80, timeout=15)
                connection.request("GET", "/", headers={"Host": "web.test"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    failures.append((answer.status, body))
                counts[0] += 1
                connection.close()
            except OSError as error:
                failures.append(repr(error))
            time.sleep(0.005)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = names()
    kubectl("-n", NS, "rollout", "restart", "deployment/web")
    kubectl("-n", NS, "rollout", "status", "deployment/web", "--timeout=180s")
    eventually("the old pods gone", lambda: not names() & before)
    stop.set()
    for thread in threads:
        thread.join()
    assert counts[0] > 100 and not failures, f"{len(failures)} of {counts[0]} failed: {failures[:3]}"
