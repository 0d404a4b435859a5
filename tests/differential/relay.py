#!/usr/bin/env python3
"""Gives requests (lines of JSON, as the oracle takes them) to the server of a kubeconfig, over one connection. usage: relay.py KUBECONFIG"""
import base64
import http.client
import json
import os
import ssl
import sys
import tempfile
import urllib.parse

import yaml


def connection(path):
    with open(path) as file:
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def on_disk(section, key):
        if key in section:
            return section[key]
        file = tempfile.NamedTemporaryFile(delete=False)
        file.write(base64.b64decode(section[f"{key}-data"]))
        file.close()
        return file.name

    tls = ssl.create_default_context(cafile=on_disk(cluster, "certificate-authority"))
    tls.load_cert_chain(on_disk(user, "client-certificate"), on_disk(user, "client-key"))
    tls.check_hostname = False
    url = urllib.parse.urlsplit(cluster["server"])
    return lambda: http.client.HTTPSConnection(url.hostname, url.port, context=tls, timeout=60)


# One user for both servers: some objects say who made them.
USER = {"Impersonate-User": "differential", "Impersonate-Group": "system:masters"}


def main():
    connect = connection(sys.argv[1])
    open_one = connect()
    for line in sys.stdin:
        question = json.loads(line)
        body = question["body"].encode() or None
        response = None
        for _ in range(2):
            try:
                open_one.request(question["method"], question["path"], body, {**question["headers"], **USER})
                response = open_one.getresponse()
                text = response.read().decode(errors="replace")
                break
            except (http.client.HTTPException, OSError):
                # Servers close connections that they have told enough, and that of a request that made them panic.
                open_one.close()
                open_one, response = connect(), None
        if response is None:
            print(json.dumps({"code": 0, "body": "no answer"}), flush=True)
            continue
        warnings = response.headers.get_all("Warning") or []
        print(json.dumps({"code": response.status, "warnings": warnings, "body": text}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
