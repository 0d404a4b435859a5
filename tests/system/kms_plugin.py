"""A KMS plugin of version 2 (k8s.io/kms/apis/v2/api.proto) on a socket, as the project's grpc for Python speaks it.

usage: kms_plugin.py SOCKET KEYS     KEYS: a file of JSON, {"write": "id of a key", "keys": {"id": "secret in hex"}}, read for each call

Its cipher is the tests' own: a stream of HMAC-SHA256 over a nonce, with a tag, so that what another key made is refused.
"""
import concurrent.futures
import hashlib
import hmac
import json
import os
import pathlib
import sys

import grpc

NONCE, TAG = 16, 32


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(**fields):
    """Fields of a length, by `_NUMBER`."""
    return b"".join(varint(int(name[1:]) << 3 | 2) + varint(len(data)) + data for name, data in fields.items())


def fields(data):
    """The last value of each field of a length, by number; these messages have no others."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value
    while at < len(data):
        tag, length = number(), number()
        found[tag >> 3], at = data[at:at + length], at + length
    return found


def stream(key, nonce, text):
    pad = b"".join(hmac.digest(key, nonce + block.to_bytes(4, "big"), "sha256") for block in range(len(text) // 32 + 1))
    return bytes(a ^ b for a, b in zip(text, pad))


def tag(key, nonce, data):
    return hmac.digest(key, b"tag" + nonce + data, hashlib.sha256)


class Plugin(grpc.GenericRpcHandler):
    def __init__(self, file):
        self.file = file

    def keys(self):
        state = json.loads(self.file.read_text())
        return state["write"], {name: bytes.fromhex(key) for name, key in state["keys"].items()}

    def status(self, _request, _context):
        return message(_1=b"v2", _2=b"ok", _3=self.keys()[0].encode())

    def encrypt(self, request, _context):
        (name, keys), nonce = self.keys(), os.urandom(NONCE)
        data = stream(keys[name], nonce, fields(request)[1])
        return message(_1=nonce + tag(keys[name], nonce, data) + data, _2=name.encode())

    def decrypt(self, request, context):
        asked, (_, keys) = fields(request), self.keys()
        key, text = keys.get(asked[3].decode()), asked[1]
        nonce, data = text[:NONCE], text[NONCE + TAG:]
        if key is None or not hmac.compare_digest(text[NONCE:NONCE + TAG], tag(key, nonce, data)):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no key of mine made this")
        return message(_1=stream(key, nonce, data))

    def service(self, details):
        known = {"Status": self.status, "Encrypt": self.encrypt, "Decrypt": self.decrypt}
        package, _, method = details.method.rpartition("/")
        return grpc.unary_unary_rpc_method_handler(known[method]) if package == "/v2.KeyManagementService" and method in known else None


if __name__ == "__main__":
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Plugin(pathlib.Path(sys.argv[2]))])
    server.add_insecure_port(f"unix://{sys.argv[1]}")
    server.start()
    server.wait_for_termination()
