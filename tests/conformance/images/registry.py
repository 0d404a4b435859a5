#!/usr/bin/env python3
"""A read-only registry over what mkimage.py wrote. usage: registry.py FOLDER HOST PORT

Any host in a reference is dropped: /v2/e2e-test-images/kitten/manifests/1.8 answers for <any>/e2e-test-images/kitten:1.8.
What does not exist is refused at once, which tests of failing pulls rely on.
"""
import json
import pathlib
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(sys.argv[1])


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, data=b"", kind="application/json", digest=""):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in ("/v2", "/v2/"):
            return self.answer(200, b"{}")
        asked = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if not asked:
            return self.answer(404)
        name, kind, digest = asked.groups()
        if not digest.startswith("sha256:"):
            refs = json.loads((FOLDER / "refs.json").read_text())
            digest = next((m["digest"] for ref, m in refs.items() if ref.split("/", 1)[1] == f"{name}:{digest}"), "")
        blob = FOLDER / "blobs/sha256" / digest.removeprefix("sha256:")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or not blob.exists():
            return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        manifest = kind == "manifests"
        self.answer(200, blob.read_bytes(), "application/vnd.oci.image.manifest.v1+json" if manifest else "application/octet-stream", digest)

    do_HEAD = do_GET


ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Registry).serve_forever()
