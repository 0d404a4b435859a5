#!/usr/bin/env python3
"""What is served: kinds, subresources, verbs, names and metrics of kube-apiserver beside those of `rk server`; prints what only one has.

usage: names.py XTASK,RK,BIN,OUT     (as run.py --live; root)"""
import json
import pathlib
import re
import sys

import live

# What each server says of itself and of its libraries.
FOREIGN = re.compile(r"^(go|process|etcd|rk|promhttp|grpc|kube_apiserver_pod_logs|apiserver_envelope_encryption_dek_cache|field_validation)_")


def get(lab, path):
    command = [lab.xtask, "lab", "exec", "--name", lab.name, "hub", "--", "kubectl", "--kubeconfig", lab.kubeconfig, "get", "--raw", path]
    done = live.subject.subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def versions(lab):
    groups = json.loads(get(lab, "/apis"))["groups"]
    return ["/api/v1", *(f"/apis/{v['groupVersion']}" for group in groups for v in group["versions"])]


def resources(lab):
    """Every resource with what discovery says of it, as lines."""
    for path in versions(lab):
        yield path
        text = get(lab, path)
        for one in json.loads(text)["resources"] if text else []:
            where = f"{path} {one['name']}"
            yield f"{where} kind={one.get('group', '')}/{one.get('version', '')}/{one['kind']} namespaced={one['namespaced']} singular={one.get('singularName', '')}"
            for field in ("verbs", "shortNames", "categories"):
                yield from (f"{where} {field} {value}" for value in one.get(field) or [])


def metrics(lab):
    """Names and types."""
    for line in (get(lab, "/metrics") or "").splitlines():
        if line.startswith("# TYPE ") and not FOREIGN.match(line.split()[2]):
            yield line.removeprefix("# TYPE ")


def paths(lab):
    return json.loads(get(lab, "/"))["paths"]


def main():
    xtask, binary, bin, out = sys.argv[1].split(",")
    labs = live.labs(xtask, binary, pathlib.Path(bin), pathlib.Path(out), "names", True)
    same = True
    for what in (resources, metrics, paths):
        upstream, rk = ({*what(lab)} for lab in labs)
        for sign, lines in (("-", upstream - rk), ("+", rk - upstream)):
            for line in sorted(lines):
                same = False
                print(sign, what.__name__, line)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
