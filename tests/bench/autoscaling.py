#!/usr/bin/env python3
"""Measures how soon a changed metric becomes a changed number of replicas.

usage: sudo tests/bench/autoscaling.py

`rk server` runs in a lab (`cargo xtask lab`) from RK_BINARY. An aggregated API `external.metrics.k8s.io` is served from here, by this file under
another argument; an autoscaler follows its one metric. Metrics tell nobody that they changed: the period of 15 s is the most that may pass, as
upstream's `--horizontal-pod-autoscaler-sync-period`.
"""
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))

import subject  # noqa: E402
from controllers import built  # noqa: E402

NAME, PORT, GROUP = "bench-hpa", 9443, "external.metrics.k8s.io/v1beta1"
STEPS = (4, 8, 12, 16, 20)


def serve(folder):
    """The metric `queue`, whose value stands in a file."""
    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path.split("?")[0].endswith("/queue"):
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                value = {"metricName": "queue", "metricLabels": {}, "timestamp": now, "value": (folder / "value").read_text()}
                body = {"kind": "ExternalMetricValueList", "apiVersion": GROUP, "metadata": {}, "items": [value]}
            else:
                body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP, "resources": [
                    {"name": "queue", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}]}
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Answer)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def objects(address):
    meta = {"name": "metrics", "namespace": "hpa"}
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"nodeSelector": {"none": "there"}, "containers": [{"name": "c", "image": "none"}]}}
    metric = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "1"}}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hpa"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 443, "targetPort": PORT}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {**meta, "labels": {"kubernetes.io/service-name": "metrics"}}, "ports": [{"port": PORT, "name": ""}],
         "endpoints": [{"addresses": [address], "conditions": {"ready": True}}]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
         "spec": {"group": GROUP.split("/")[0], "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                  "insecureSkipTLSVerify": True, "service": {"name": "metrics", "namespace": "hpa"}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "hpa"},
         "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": pod}},
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x", "namespace": "hpa"},
         "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 100, "metrics": [metric]}},
    ]


def main():
    rk, xtask = built("RK_BINARY", "--package", "rk", "rk"), built("XTASK", "--package", "xtask", "xtask")
    with tempfile.TemporaryDirectory(prefix="rk-bench-", dir="/var/tmp") as out:
        out = pathlib.Path(out)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", out / "tls.key",
                        "-out", out / "tls.crt", "-days", "2", "-subj", "/CN=metrics.hpa.svc"], check=True, capture_output=True)
        (out / "value").write_text("1")
        lab = subject.Lab(xtask, NAME, out)
        server = None
        try:
            lab.task("up", "--name", NAME, "--servers", 1, "--agents", 0, "--binary", rk)
            server = lab.start("hub", sys.executable, __file__, "serve", out, log="metrics.log")
            wanted = {"apiVersion": "v1", "kind": "List", "items": objects(f"10.99.{lab.state()['network']}.1")}
            subprocess.run(lab.command("hub", "kubectl", "apply", "-f", "-"), input=json.dumps(wanted), text=True, check=True, stdout=subprocess.DEVNULL)
            seen = subprocess.Popen(lab.command("hub", "kubectl", "-n", "hpa", "get", "deployment", "x", "--watch", "-o", "jsonpath={.spec.replicas}{\"\\n\"}"),
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            lab.kubectl("kubectl", "wait", "apiservice/v1beta1.external.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
            lab.kubectl("kubectl", "-n", "hpa", "wait", "hpa/x", "--for=condition=ScalingActive", "--timeout=60s")
            for number, replicas in enumerate(STEPS):
                # At another point of the period each time.
                time.sleep(3.7 * number)
                (out / "value").write_text(str(replicas))
                began = time.monotonic()
                while int(seen.stdout.readline()) != replicas:
                    pass
                print(f"metric {replicas}: as many replicas after {time.monotonic() - began:.2f} s (at most 15 s)", flush=True)
            seen.kill()
        finally:
            if server:
                server.terminate()
            lab.down()
            print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(serve(pathlib.Path(sys.argv[2])) if sys.argv[1:2] == ["serve"] else main())
