"""Who answers: a program that speaks lines of JSON (the oracle, rk in one process), or a server over HTTPS."""
import json
import subprocess


class Program:
    """A request on its standard input, an answer on its standard output."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def call(self, method, path, body=None, headers=None):
        question = {"method": method, "path": path, "headers": {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})},
                    "body": body if isinstance(body, str) else "" if body is None else text(body)}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"differential: {self.process.args} ended at {method} {path} {question['body'][:2000]}")
        answer = json.loads(line)
        return answer["code"], parsed(answer["body"]), sorted(set(answer.get("warnings") or []))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def text(body):
    """As Go's clients write it: upstream compares bytes where it keeps JSON as it came (parameters of devices, data of revisions)."""
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def parsed(answer):
    try:
        return json.loads(answer)
    except ValueError:
        return answer
