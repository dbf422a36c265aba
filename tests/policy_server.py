"""A chat endpoint with a scripted policy, as its own process on 127.0.0.1, that answers a recipe's questions badly.

What it does with a question depends on the question alone and how often it was asked: some fail for a while (429, 500,
broken JSON, a wrong schema, a slow answer), some are refused, and the rest is answered. It keeps every request in a
file of lines, given as its argument, with what it did.
"""

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PASSING = ("429", "500", "truncated", "wrong", "slow")
TOKENS = (400, 100)  # charged for every answer


class Handler(BaseHTTPRequestHandler):
    """Answers by the policy."""

    protocol_version = "HTTP/1.1"
    log: Path
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(body)
        name = request["response_format"]["json_schema"]["name"]
        content = request["messages"][-1]["content"]
        texts = [part["text"] for part in content if part["type"] == "text"]
        key = hashlib.sha256(json.dumps([request["model"], name, content]).encode()).hexdigest()
        with self.lock:
            self.counts[key] += 1
            action = policy(key, self.counts[key])
            line = {"key": key, "schema": name, "action": action, "images": len(content) - len(texts)}
            with self.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
        self._act(action, answer(name, texts, int(key[:8], 16)))

    def _act(self, action: str, reply: dict[str, Any]) -> None:
        if action in ("429", "500"):
            self._send(int(action), {"error": {"message": "not now"}}, {"retry-after": "0"})
            return
        if action == "slow":
            time.sleep(0.3)
        text = {"wrong": '{"else": 1}', "truncated": json.dumps(reply)[:-9]}.get(action, json.dumps(reply))
        message = {"role": "assistant", "content": text}
        if action == "refuses":
            message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
        usage = {"prompt_tokens": TOKENS[0], "completion_tokens": TOKENS[1]}
        self._send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data))}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def policy(key: str, times: int) -> str:
    """What to do with a question asked for the n-th time."""
    draw = int(key[8:16], 16) % 100
    if draw < 4:
        return "refuses"
    if draw < 7:
        return "wrong"  # for ever
    if draw < 47 and times <= 1 + draw % 2:
        return PASSING[draw % len(PASSING)]
    return "answers"


def answer(schema: str, texts: list[str], draw: int) -> dict[str, Any]:
    """A right answer to a question of that schema."""
    if schema == "SceneCheck":
        return {"reason": "as drawn", "physical": draw % 10 > 0, "sensible": True, "depictable": True}
    if schema == "PairTexts":
        return texts_of_pair(texts, draw)
    if schema == "PromptPair":
        words = " ".join(f"thing{(draw >> place) % 97}" for place in range(25))
        return {"source_prompt": f"A place with {words}.", "prompt": f"A bright place with {words}."}
    if schema == "Kind":
        return {"reason": "as drawn", "task": "relighting"}
    scores = [10 - draw % 3, 4 + draw // 3 % 7, 9]
    return {"reasons": "As the hash of the question says.", **dict(zip(SCORES, scores, strict=True))}


SCORES = ("faithfulness", "quality", "preservation")


def texts_of_pair(texts: list[str], draw: int) -> dict[str, Any]:
    """Texts that name the scene and the task, with words that tell scenes apart."""
    scene, task = texts[0].split(": ", 1)[1], texts[1].split(": ")[1]
    words = " ".join(f"detail{(draw >> place) % 89}" for place in range(25))
    return {
        "suitable": draw % 12 > 0,
        "reason": "as drawn",
        "instruction": f"Do a {task} to detail{draw % 89}",
        "source_prompt": f"A picture of {scene} with {words}.",
        "edited_prompt": f"A picture after {task} of {scene} with {words}.",
    }


if __name__ == "__main__":
    Handler.log = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
