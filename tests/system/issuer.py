"""An HTTPS server that issues nothing itself: it publishes an issuer's keys and answers reviews, from files of one folder.

issuer.py FOLDER PORT: FOLDER/{tls.crt,tls.key} are its certificate; keys.json is what /keys answers, discovery.json the rest of the issuer;
access.json maps users to what they may (a list of verbs) for POST /access, a SubjectAccessReview; every review is a line of reviews.log."""
import http.server
import json
import pathlib
import ssl
import sys

FOLDER, PORT = pathlib.Path(sys.argv[1]), int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        files = {"/.well-known/openid-configuration": "discovery.json", "/keys": "keys.json"}
        file = files.get(self.path)
        self.answer(200, (FOLDER / file).read_text()) if file else self.answer(404, "{}")

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(FOLDER / "reviews.log", "a") as log:
            log.write(json.dumps(review) + "\n")
        spec = review["spec"]
        may = json.loads((FOLDER / "access.json").read_text()).get(spec.get("user"), [])
        attributes = spec.get("resourceAttributes") or spec.get("nonResourceAttributes")
        review["status"] = {"allowed": attributes["verb"] in may, "reason": "the webhook says so"}
        self.answer(200, json.dumps(review))

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER / "tls.crt", FOLDER / "tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
