"""The API without kubectl: HTTPS with the administrator's certificate on connections that stay open.

For tests and measurements in which starting a client program for each request would be most of what is seen.
"""
import base64
import http.client
import json
import re
import ssl
import tempfile
import urllib.parse

KUBECONFIG = "/etc/rk/kubeconfig.yaml"
MERGE_PATCH = "application/merge-patch+json"


class Refused(Exception):
    """The API's answer was an error; `status` is its HTTP code."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Access:
    """Where the API is and who we are, taken from the kubeconfig that rk writes."""

    def __init__(self, path=KUBECONFIG):
        with open(path) as file:
            text = file.read()

        def field(name):
            return re.search(rf"\b{name}:\s*(\S+)", text)[1]

        url = urllib.parse.urlsplit(field("server"))
        self.host, self.port = url.hostname, url.port
        authority = base64.b64decode(field("certificate-authority-data")).decode()
        self.tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pem:  # the ssl module reads keys from files only
            for name in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(field(name)))
            pem.flush()
            self.tls.load_cert_chain(pem.name)

    def connect(self, timeout=30):
        return Connection(http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout))


class Connection:
    """One connection; after an OSError or HTTPException the next request opens it anew."""

    def __init__(self, http_connection):
        self.http = http_connection

    def send(self, method, path, body=None, content_type="application/json"):
        """Sends a request without waiting for its answer, which `answer` reads."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        self.http.request(method, path, body, headers)

    def answer(self):
        response = self.http.getresponse()
        text = response.read()
        if response.status >= 300:
            raise Refused(response.status, text.decode(errors="replace"))
        return text

    def request(self, method, path, body=None, content_type="application/json"):
        """The answer's JSON, or its text where it is none."""
        try:
            self.send(method, path, body, content_type)
            text = self.answer()
        except (OSError, http.client.HTTPException):
            self.http.close()
            raise
        return json.loads(text) if text[:1] == b"{" else text.decode()

    def get(self, path):
        return self.request("GET", path)

    def list(self, path, limit=500):
        """All items of a list, page by page, and its version."""
        items, token = [], ""
        while True:
            page = self.get(f"{path}?limit={limit}" + (f"&continue={urllib.parse.quote(token)}" if token else ""))
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    def watch(self, path, version=None, bookmarks=False):
        """Starts a watch; `next_line` of the result waits for an event."""
        query = {"watch": "1", **({"resourceVersion": version} if version is not None else {}), **({"allowWatchBookmarks": "true"} if bookmarks else {})}
        try:
            self.send("GET", f"{path}?{urllib.parse.urlencode(query)}")
            response = self.http.getresponse()
            if response.status != 200:
                raise Refused(response.status, response.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            self.http.close()
            raise
        return Watch(self.http, response)

    def close(self):
        self.http.close()


class Watch:
    def __init__(self, http_connection, response):
        self.http, self.response = http_connection, response

    def next_line(self):
        """The next event as bytes; empty at the end of the stream."""
        return self.response.readline()

    def next(self):
        """The next event as (type, object), or None at the end of the stream."""
        line = self.next_line()
        if not line:
            return None
        event = json.loads(line)
        return event["type"], event["object"]

    def close(self):
        self.response.close()
        self.http.close()
