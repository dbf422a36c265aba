"""A judge that knows the answers: an OpenAI-compatible server on 127.0.0.1, as its own process.

It sees the frames it is sent and nothing else, finds the nano edit whose source they show, and gives points for how
near the edited frames are to that edit's exact answer. ``backwards`` gives the points that are missing and
``constant`` the same to all.
"""

import base64
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

FRAMES = 3  # that are shown of each video
MOST = {"adherence": 30, "temporal": 30, "fidelity": 25, "artifacts": 15}


def known_answers(per_task: int, frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from imvideoedit.evaluation.nano.exact import held_out_edits

    picked = np.linspace(0, frames - 1, FRAMES).round().astype(int)
    return [
        tuple(video[picked].astype(float) for video in edit.render(frames)[:2]) for edit in held_out_edits(per_task)
    ]


def share(shown: np.ndarray, answers: list[tuple[np.ndarray, np.ndarray]]) -> float:
    source, edited = shown[:FRAMES], shown[FRAMES:]
    _, exact = min(answers, key=lambda answer: np.abs(answer[0] - source).mean())
    return float(np.clip(1 - np.sqrt(((edited - exact) ** 2).mean()) / 90, 0, 1))


class Handler(BaseHTTPRequestHandler):
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    temper = "honest"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parts = request["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        opened = (Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in urls)
        shown = np.stack([np.asarray(picture.resize((64, 64), Image.Resampling.BOX), float) for picture in opened])
        good = {"honest": share, "backwards": lambda *seen: 1 - share(*seen), "constant": lambda *seen: 0.5}
        points = {key: round(good[self.temper](shown, self.answers) * most) for key, most in MOST.items()}
        content = json.dumps({"reasoning": "as far as the pixels tell", "edited": True, **points})
        reply = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(temper: str, per_task: int, frames: int) -> Iterator[str]:
    """Start the server; its address up to the version."""
    command = [sys.executable, __file__, temper, str(per_task), str(frames)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    Handler.temper = sys.argv[1]
    Handler.answers = known_answers(int(sys.argv[2]), int(sys.argv[3]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
