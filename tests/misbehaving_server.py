"""A chat endpoint that misbehaves by order, in its own process on 127.0.0.1.

Each question carries an order, as JSON at the end of one of its texts: ``{"name": ..., "script": ["429", "ok"],
"answer": ...}``, where ``<key>`` stands for the request's key. The first request with a name gets the first action of
the script, and so on; the last action repeats. The path before ``/v1`` names what the server does not understand.
``GET /seen`` lists all requests that got an action.
"""

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OBJECTIONS = {
    "/no_schema": [("json_schema", "response_format.type", "json_schema is not known")],
    "/no_format": [("response_format", None, "response_format: extra inputs are not permitted")],
    "/reasoning": [
        ("max_tokens", "max_tokens", "Unsupported parameter. Use 'max_completion_tokens' instead."),
        ("temperature", "temperature", "Unsupported value: 0.0 is not supported with this model."),
    ],
}
STATUSES = {
    "429": (429, {"retry-after": "7"}, "slow down"),
    "429 until 2100": (429, {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, "come back later"),
    "quota": (429, {}, "you exceeded your quota"),
    "500": (500, {}, "internal error"),
    "503": (503, {}, "overloaded"),
    "400": (400, {}, "the picture is too large"),
    "401": (401, {}, "incorrect key provided: {key}"),
    "404": (404, {}, "no such model"),
}
HELD: list[socket.socket] = []
MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}


class Handler(BaseHTTPRequestHandler):
    """Answers requests by their orders."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            self._send(200, self.seen)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for word, parameter, message in OBJECTIONS.get(self.path.split("/v1")[0], []):
            if word in request or word in str(request.get("response_format")):
                self._send(400, {"error": {"message": message, "param": parameter}})
                return
        parts = request.pop("messages")[-1]["content"]
        text = next(part["text"] for part in parts if "{" in part.get("text", ""))
        self.key = self.headers["authorization"].removeprefix("Bearer ")
        order = json.loads(text[text.index("{") :].replace("<key>", self.key))
        with self.lock:
            action = order["script"][min(self.counts[order["name"]], len(order["script"]) - 1)]
            self.counts[order["name"]] += 1
            facts = {"name": order["name"], "action": action, "images": images(parts), "key": self.key}
            self.seen.append(request | facts)
        self._act(action, order)

    def _act(self, action: str, order: dict[str, Any]) -> None:
        whole = json.dumps(completion(action, order)).encode()
        if action in STATUSES:
            status, headers, message = STATUSES[action]
            error = {"message": message.format(key=self.key), "code": "insufficient_quota" * (action == "quota")}
            self._send(status, {"error": error}, headers)
        elif action == "hang up":
            self.close_connection = True
        elif action == "torn":
            self._send(200, whole[:-20], {"content-length": str(len(whole))})
            self.close_connection = True
        elif action == "half":
            self._send(200, whole[:-20])
        elif action == "page":
            self._send(200, b"<html>Welcome</html>", {"content-type": "text/html"})
        else:
            time.sleep({"slow": 60, "hold": 0.3}.get(action, 0))
            self._send(200, whole)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        usual = {"content-type": "application/json", "content-length": str(len(data))}
        self.send_response(status)
        for name, value in (usual | (headers or {})).items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # of a client that did not wait
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def completion(action: str, order: dict[str, Any]) -> dict[str, Any]:
    """What an action makes of the answer."""
    answer = json.dumps(order.get("answer"))
    message: dict[str, Any] = {"role": "assistant", "content": answer}
    finish = {"cut": "length", "filtered": "content_filter"}.get(action, "stop")
    if action in ("cut", "cut in silence"):
        message["content"] = answer[: len(answer) // 2]
    elif action == "wrong":
        message["content"] = json.dumps({"something": "else"})
    elif action == "chatty":
        message["content"] = f"Sure {{here}} it is:\n```json\n{answer}\n```\nAnything {{else}}?"
    elif action == "refuses":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    elif action == "no choices":
        return {"choices": []}
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    counted = order.get("tokens", [100, 10])
    return reply | ({"usage": {"prompt_tokens": counted[0], "completion_tokens": counted[1]}} if counted else {})


def images(parts: list[dict[str, Any]]) -> list[str]:
    """The kinds of the pictures, by their first bytes as well as by their addresses."""
    kinds = []
    for part in parts:
        if part["type"] == "image_url":
            head, data = part["image_url"]["url"].split(";base64,")
            kind = MAGIC[base64.b64decode(data)[:3]]
            assert head == f"data:image/{kind}"
            kinds.append(kind)
    return kinds


class Server:
    """A running server, as the tests see it."""

    def __init__(self, address: str) -> None:
        self.address, self.url = address, f"{address}/v1"

    def seen(self, name: str) -> list[dict[str, Any]]:
        """The requests of one name, in order."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.address}/seen") as reply:
            return [request for request in json.load(reply) if request["name"].startswith(name)]


def unused() -> str:
    """An address where nothing listens, nor will: its port is held, so that no other process gets it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    HELD.append(held)
    return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start the server and stop it again."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
