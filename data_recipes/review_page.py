"""The review page: its parts, and what happens on it."""

import json
from typing import Any

import gradio as gr

from data_recipes.decisions import TEXTS
from data_recipes.reviewing import ORDERS, Desk, Shown
from imvideoedit.common.errors import UserError

KEYS = {"a": "accept", "r": "reject", "s": "skip", "b": "back"}
"""Keys to the buttons they press."""
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


def build_page(desk: Desk, reviewer: str) -> gr.Blocks:
    """The page; ``reviewer`` is the name where the address gives none."""
    with gr.Blocks(title="Review of pairs") as page:
        parts = _Parts(reviewer)
        actions = _Actions(desk)
        opened = [parts.name, parts.order]
        shown = [parts.place, *parts.outputs]
        page.load(_named, [parts.name], [parts.name]).then(actions.open, opened, shown).then(None, js=LISTEN)
        for changed in (parts.name.submit, parts.order.input):
            changed(actions.open, opened, shown)
        said = [parts.place, *opened, *(parts.texts[name] for name in TEXTS)]
        # One event at a time: what is pressed while the next pair is on its way would hit a pair not yet seen.
        once: dict[str, Any] = {"trigger_mode": "once", "concurrency_limit": 1, "concurrency_id": "decide"}
        parts.accept.click(actions.accept, said, shown, **once)
        parts.reject.click(actions.reject, said, shown, **once)
        parts.skip.click(actions.skip, [parts.place, *opened], shown, **once)
        parts.back.click(actions.back, [parts.place, *opened], shown, **once)
    return page


def _named(name: str, request: gr.Request) -> str:
    return request.query_params.get("reviewer", name)


class _Parts:
    """What stands where."""

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


class _Actions:
    """What the page's events do; each returns the place and all that is shown."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._orders = {kind: desk.order(kind) for kind in ORDERS}

    def open(self, name: str, order: str) -> list[Any]:
        return self._at(self._desk.next_open(self._orders[order], name.strip()), name, order)

    def accept(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._decide(True, place, name, order, texts)

    def reject(self, place: int, name: str, order: str, *texts: str) -> list[Any]:
        return self._decide(False, place, name, order, texts)

    def skip(self, place: int, name: str, order: str) -> list[Any]:
        return self._at((place + 1) % len(self._orders[order]), name, order)

    def back(self, place: int, name: str, order: str) -> list[Any]:
        return self._at((place - 1) % len(self._orders[order]), name, order)

    def _decide(self, accept: bool, place: int, name: str, order: str, texts: tuple[str, ...]) -> list[Any]:
        shown = self._desk.show(self._orders[order][place], name.strip())
        try:
            self._desk.decide(name, shown, accept, dict(zip(TEXTS, texts, strict=True)))
        except UserError as error:
            raise gr.Error(str(error)) from error
        done = "accepted" if accept else "rejected"
        following = self._desk.next_open(self._orders[order], name.strip(), place + 1)
        return self._at(following, name, order, f"{done} the pair before")

    def _at(self, place: int, name: str, order: str, told: str = "") -> list[Any]:
        shown = self._desk.show(self._orders[order][place], name.strip())
        position = f"<p>pair {place + 1} of {len(self._orders[order])}{f', {told}' if told else ''}</p>"
        pictures = [(shown.source, shown.target), shown.difference]
        return [
            place, *pictures, *shown.texts.values(), _judgement(shown), position, self._desk.progress(name.strip())
        ]  # fmt: skip


def _judgement(shown: Shown) -> str:
    """The judges' scores and reasons, in Markdown."""
    judges = {"judge": json.loads(shown.verdict["scores"]), **json.loads(shown.verdict["crossed"])}
    names = list(judges["judge"])
    lines = [f"| {shown.row['task'].replace('_', ' ')} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {who} | {' | '.join(f'{scores[n]:g}' for n in names)} |" for who, scores in judges.items()]
    verdict = "accepted" if shown.verdict["accepted"] else f"rejected: {shown.verdict['reason']}"
    own = f"**You {'accepted' if shown.decision.accept else 'rejected'} it before.**" if shown.decision else ""
    return "\n".join([*lines, "", shown.verdict["comment"], "", f"Filter: {verdict}. {own}"])
