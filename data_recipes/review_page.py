"""The review page: its components and event handlers."""

import html
import json
from typing import Any

import gradio as gr

from data_recipes.review_queue import ORDERS, ReviewItem, ReviewQueue
from data_recipes.rows import TEXTS, crossed_of, scores_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.escaping import markdown_text

KEYS = {"a": "accept", "r": "reject", "s": "skip", "b": "back"}
"""Keys to the buttons that they press."""
LISTEN = """() => {
  if (window.reviewKeys) return;
  window.reviewKeys = true;
  document.addEventListener('keydown', (event) => {
    const typing = event.target.matches('textarea, input:not([type=radio]):not([type=range])');
    if (event.key === 'Escape' && typing) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const id = KEYS[event.key.toLowerCase()];
    if (id) document.getElementById(id).click();
  });
}""".replace("KEYS", json.dumps(KEYS))
CSS = """
.gradio-container { max-width: 1200px !important; }
#difference img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
#status .problem { color: #b91c1c; font-weight: 600; }
footer { display: none !important; }
"""


def build_page(queue: ReviewQueue, reviewer: str) -> gr.Blocks:
    """The page; ``reviewer`` is the name unless the address has one."""
    with gr.Blocks(title="Review of pairs") as page:
        ui = _Components(reviewer)
        handlers = _Handlers(queue)
        who = [ui.name, ui.order]
        outputs = [ui.place, *ui.outputs]
        page.load(_reviewer, [ui.name], [ui.name]).then(handlers.open, who, outputs).then(None, js=LISTEN)
        for changed in (ui.name.submit, ui.order.input):
            changed(handlers.open, who, outputs)
        # One event at once: a key pressed while the next pair is loading would decide on a pair not yet seen.
        once: dict[str, Any] = {"trigger_mode": "once", "concurrency_limit": 1, "concurrency_id": "decide"}
        for button in ("accept", "reject", "skip", "back"):
            inputs = [ui.place, *who, *ui.texts.values()]
            getattr(ui, button).click(getattr(handlers, button), inputs, outputs, **once)
    return page


def _reviewer(name: str, request: gr.Request) -> str:
    return request.query_params.get("reviewer", name)


class _Components:
    """The components, from top to bottom."""

    def __init__(self, reviewer: str) -> None:
        self.place = gr.State(0)
        with gr.Row():
            self.name = gr.Textbox(reviewer, label="Your name", elem_id="name", max_lines=1, scale=1)
            self.order = gr.Radio(list(ORDERS), value=ORDERS[0], label="Order", elem_id="order", scale=1)
            self.progress = gr.Markdown(elem_id="progress")
        with gr.Row():
            self.slider = gr.ImageSlider(
                label="before | after", elem_id="slider", format="png", max_height=420, scale=3
            )
            self.difference = gr.Image(label="difference", elem_id="difference", format="png", height=420, scale=2)
        self.status = gr.HTML(elem_id="status")
        with gr.Row():
            self.back = gr.Button("Back (B)", elem_id="back")
            self.reject = gr.Button("Reject (R)", elem_id="reject", variant="stop")
            self.skip = gr.Button("Skip (S)", elem_id="skip")
            self.accept = gr.Button("Accept (A)", elem_id="accept", variant="primary")
        self.texts = {
            name: gr.Textbox(label=name.replace("_", " "), elem_id=name, lines=1 if name == "instruction" else 3)
            for name in TEXTS
        }
        self.judge = gr.Markdown(elem_id="judge")
        self.outputs = [self.slider, self.difference, *self.texts.values(), self.judge, self.status, self.progress]


class _Handlers:
    """Event handlers; each returns the place in the order and the values of all outputs."""

    def __init__(self, queue: ReviewQueue) -> None:
        self._queue = queue
        self._orders = {kind: queue.order(kind) for kind in ORDERS}

    def open(self, name: str, order: str) -> list[Any]:
        return self._show(self._queue.next_open(self._orders[order], name.strip()), name, order)

    def accept(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._decide(True, place, name, order, texts)

    def reject(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._decide(False, place, name, order, texts)

    def skip(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._show(place + 1, name, order)

    def back(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._show(place - 1, name, order)

    def _decide(self, accept: bool, place: int, name: str, order: str, texts: tuple[str, ...]) -> list[Any]:
        item = self._queue.item(self._orders[order][place], name.strip())
        try:
            self._queue.decide(name, item, accept, dict(zip(TEXTS, texts, strict=True)))
        except UserError as error:
            raise gr.Error(html.escape(str(error))) from error
        following = self._queue.next_open(self._orders[order], name.strip(), place + 1)
        return self._show(following, name, order, f", {'accepted' if accept else 'rejected'} the previous one")

    def _show(self, place: int, name: str, order: str, note: str = "") -> list[Any]:
        place %= len(self._orders[order])
        item = self._queue.item(self._orders[order][place], name.strip())
        position = f"<p>pair {place + 1} of {len(self._orders[order])}{note}</p>"
        texts = [*item.texts.values(), _judgement(item), position, self._queue.progress(name.strip())]
        return [place, (item.source, item.target), item.difference, *texts]


def _judgement(item: ReviewItem) -> str:
    """The judges' scores and reasons, in Markdown."""
    judges = {"judge": scores_of(item.verdict), **crossed_of(item.verdict)}
    names = list(judges["judge"])
    heads = [markdown_text(words) for words in (item.row["task"].replace("_", " "), *names)]
    lines = [f"| {' | '.join(heads)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {markdown_text(name)} | {' | '.join(f'{scores[n]:g}' for n in names)} |" for name, scores in judges.items()
    ]
    verdict = "accepted" if item.verdict["accepted"] else f"rejected: {item.verdict['reason']}"
    own = f"**You {'accepted' if item.decision.accept else 'rejected'} it before.**" if item.decision else ""
    return "\n".join(
        [*lines, "", markdown_text(item.verdict["comment"]), "", f"Filter: {markdown_text(verdict)}. {own}"]
    )
