"""The raters' page."""

from pathlib import Path
from typing import Any

import gradio as gr

from imvideoedit.common.escaping import markdown_text
from imvideoedit.evaluation.study.session import Question, RatingSession

CSS = """
.gradio-container { max-width: 1280px !important; }
#status { min-height: 1.6em; }
#source video, #edited video, #left video, #right video { max-height: 52vh; }
footer { display: none !important; }
"""
INTRO = {
    "ratings": "# How good is the edit?\nYou see a video, an instruction, and the edited video. Rate the edit",
    "pairs": "# Which edit is better?\nYou see a video, an instruction, and two edits. Choose the better one",
}
CRITERIA = ": does it follow the instruction, does it look right, is everything else unchanged?"
CHOICES: dict[str, list[tuple[str, float]]] = {
    "ratings": [("1 poor", 1), ("2 fair", 2), ("3 good", 3), ("4 very good", 4), ("5 excellent", 5)],
    "pairs": [("A is better", 1), ("about equal", 0.5), ("B is better", 0)],
}


def build_form(session: RatingSession) -> gr.Blocks:
    """The page: a name, then one question after the other; raters who come back continue where they stopped."""
    with gr.Blocks(title="User study", analytics_enabled=False) as page:
        asked = gr.State(None)
        gr.Markdown(INTRO[session.mode] + CRITERIA)
        with gr.Row() as welcome:
            name = gr.Textbox(
                label="Your name, or any word",
                info="Only a hash of it is stored; give the same one to continue later.",
                elem_id="name",
            )
            begin = gr.Button("Begin", variant="primary", elem_id="begin")
        status = gr.Markdown(elem_id="status")
        with gr.Column(visible=False) as question:
            instruction = gr.Markdown(elem_id="instruction")
            with gr.Row():
                videos = [
                    gr.Video(label=label, autoplay=True, loop=True, interactive=False, elem_id=key)
                    for label, key in _places(session)
                ]
            choice = gr.Radio(CHOICES[session.mode], label="Your answer", elem_id="choice")
            following = gr.Button("Next", variant="primary", elem_id="next")
        shown = [asked, welcome, question, status, instruction, *videos, choice]

        def start(typed: str) -> list[Any]:
            if not typed.strip():
                return [None, gr.skip(), gr.skip(), "Give a name first.", *[gr.skip()] * (len(videos) + 2)]
            return _show(session.next_for(typed), len(videos))

        def answer(typed: str, last: Question, value: float | None) -> list[Any]:
            if value is None:
                return [
                    last,
                    gr.skip(),
                    gr.skip(),
                    f"{_place(last)}. Choose an answer first.",
                    *[gr.skip()] * (len(videos) + 2),
                ]
            session.answer(typed, last, float(value))
            return _show(session.next_for(typed), len(videos))

        begin.click(start, name, shown)
        name.submit(start, name, shown)
        following.click(answer, [name, asked, choice], shown)
    return page


def _places(session: RatingSession) -> list[tuple[str, str]]:
    if session.mode == "ratings":
        return [("Source", "source"), ("Edited", "edited")]
    return [("Source", "source"), ("A", "left"), ("B", "right")]


def _show(question: Question | None, count: int) -> list[Any]:
    """New values of state, welcome, question, status, instruction, videos and choice."""
    welcome = gr.update(visible=False)
    if question is None:
        done = "**All are answered. Thank you!**"
        return [None, welcome, gr.update(visible=False), done, "", *[None] * count, None]
    paths: list[Path] = [question.source, *question.edited]
    instruction = f"**Instruction:** {markdown_text(question.instruction)}"
    return [question, welcome, gr.update(visible=True), _place(question), instruction, *map(str, paths), None]


def _place(question: Question) -> str:
    return f"Question {question.number} of {question.count}"
