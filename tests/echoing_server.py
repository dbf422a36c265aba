"""A chat endpoint that repeats the key it was sent, in every form and in every part of what it answers.

Run as its own process on 127.0.0.1. The path before ``/v1`` says how: ``/answers`` gives right answers to a recipe's
and a judge's questions, after a failure of each kind, with the key in all texts; a number fails with that status.
"""

import base64
import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from tests.policy_server import answer

FAILURES = (500, 429, 200)  # the last with a page for an answer
KEY = "sk-planted/Aa0+Zz9_.~-0123456789abcdefXYZ"


def forms(key: str) -> list[str]:
    """A key as it may be repeated."""
    encoded = [base64.b64encode(text.encode()).decode() for text in (key, f"Bearer {key}", f"x{key}", f"xy{key}yx")]
    safe = [base64.urlsafe_b64encode(text.encode()).decode() for text in (key, f"user:{key}", f"a {key} b")]
    return [key, f"Bearer {key}", quote(key, safe=""), quote(key, safe="").lower(), *encoded, *safe, f"{key[:20]}..."]


class Handler(BaseHTTPRequestHandler):
    """Answers."""

    protocol_version = "HTTP/1.1"
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request, how = json.loads(body), self.path.split("/")[1]
        echo = " ".join(forms(self.headers["authorization"].removeprefix("Bearer ")))
        with self.lock:
            times = self.counts[body.decode()]
            self.counts[body.decode()] += 1
            refuses = len(self.counts) % 5 == 0
        planned = FAILURES[times] if times < len(FAILURES) else 200
        status = planned if how == "answers" else int(how)
        if status != 200:
            self._send(status, json.dumps({"error": {"message": f"refused {echo}", "code": echo}}).encode())
        elif times < len(FAILURES):
            self._send(200, f"<html>{echo}</html>".encode())
        else:
            self._send(200, json.dumps(completion(request, echo, refuses)).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def completion(request: dict[str, Any], echo: str, refuses: bool) -> dict[str, Any]:
    schema = request["response_format"]["json_schema"]
    parts = request["messages"][-1]["content"]
    if "adherence" in schema["schema"]["properties"]:
        reply = {"reasoning": "", "edited": True, "adherence": 21, "temporal": 25, "fidelity": 18, "artifacts": 12}
    else:
        texts = [part["text"] for part in parts if part["type"] == "text"]
        reply = answer(schema["name"], texts, sum(json.dumps(texts).encode()) * 7919)
    reply = {name: f"{value} {echo}" if name.startswith("reason") else value for name, value in reply.items()}
    message = {"content": None, "refusal": echo} if refuses else {"content": f"{echo} {json.dumps(reply)} {echo}"}
    usage = {"prompt_tokens": 400, "completion_tokens": 100}
    return {"id": echo, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start the server; its address up to the path."""
    with subprocess.Popen([sys.executable, "-m", "tests.echoing_server"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
