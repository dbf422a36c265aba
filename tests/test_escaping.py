"""Hostile texts (instructions, names, answers of models) in every kind of place: shown as they are, never obeyed."""

import ast
import csv
import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from data_recipes.rows import CRITERIA
from imvideoedit.common.escaping import markdown_code, markdown_text, write_csv
from imvideoedit.common.terminal import printable, say
from imvideoedit.evaluation.edits.manifest import read_methods
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit, write_scored_edits
from imvideoedit.evaluation.page.page import About, write_page
from imvideoedit.video.reader import read_metadata, read_video, write_video
from tests.edited_clips import write_edits
from tests.processes import CHECKOUT, run

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>{{7*7}}{% raw %}"
MARKDOWN = (
    "[click](javascript:alert(1)) ![x](http://evil/x.png) | `code` **b** _i_ <b>&lt; ~~s~~ # h $$x$$ <http://evil>"
)
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b0m \u202etxt.exe\u2069 \x08\x7f"
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\r=1", "\n=1", "＝1", "-2+3 (1 to 2)", "+1e5x"]
FORMAT = "%s%s%n {0.__class__} %(key)s"
MARKED = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Tags(HTMLParser):
    """The tags with their attributes, and the texts, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for folder in ("imvideoedit", "data_recipes"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                yield path, node


@settings(max_examples=300)
@given(st.text(st.sampled_from("\\`*_[]()<>#+-=.!|&~$1a \"'\n\t:/\x1b{}"), max_size=24))
def test_any_text_is_itself_in_markdown(text):
    wanted = " ".join(printable(text).split())
    shown = Tags(MARKED.render(f"word {markdown_text(text)}"))
    assert {tag for tag, _ in shown.tags} == {"p"} and shown.text.strip() == f"word {wanted}".strip()
    own = Tags(MARKED.render(markdown_text(text)))
    assert {tag for tag, _ in own.tags} <= {"p"} and own.text.strip() == wanted
    cells = Tags(MARKED.render(f"| a | b |\n|---|---|\n| {markdown_text(text)} | end |"))
    assert [tag for tag, _ in cells.tags].count("td") == 2
    code = Tags(MARKED.render(f"x {markdown_code(text + 'z')}"))
    assert [tag for tag, _ in code.tags] == ["p", "code"]


def test_usual_names_stay_as_they_are_in_markdown():
    for name in ("aligned_update", "72.8 (70.1 to 75.0)", "method=first", "make the red box blue", "a-b.mp4"):
        assert markdown_text(name) == name


def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path):
    numbers = ["-0.5", "+1.25", "-inf", "nan", "1e-05", "+0.12 (-0.3 to 0.4)", -2, 0.5, "", "word"]
    write_csv(tmp_path / "a.csv", [FORMULAS, numbers])
    read = list(csv.reader((tmp_path / "a.csv").open(newline="")))
    assert read == [[f"'{formula}" for formula in FORMULAS], list(map(str, numbers))]


def test_a_report_shows_hostile_texts_and_obeys_none(tmp_path):
    hostile = " ".join([SCRIPT, MARKDOWN, FORMAT])
    rows = read_methods(write_edits(tmp_path / "edits", count=2, methods=("ours", "other")), [])
    edits = [
        ScoredEdit(
            replace(row, instruction=f"=cmd {hostile}", method=f"-{row.method}{SCRIPT}", task=f"@{SCRIPT}"),
            {"judge.total": float(place), "judge.a": 1.0},
            {"judge.reasoning": hostile},
            {"judge": f"+{hostile}"} if place == 3 else {},
        )
        for place, row in enumerate(rows)
    ]
    page = write_page(edits, About(f"name {hostile}", facts=[hostile], warnings=[hostile]), tmp_path / "report")
    shown = Tags(page.read_text())
    assert not {tag for tag, _ in shown.tags} & {"script", "svg", "iframe", "b>", "a"}
    for tag, attributes in shown.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert attributes.get("src", "data:").startswith("data:")
    assert shown.text.count("<script>alert(1)</script>") > 5 and "{{7*7}}" in shown.text
    told = Tags(MARKED.render((page.parent / "tables.md").read_text()))
    assert {tag for tag, _ in told.tags} <= {"h2", "table", "thead", "tbody", "tr", "th", "td", "p"}
    write_scored_edits(edits, {}, tmp_path)
    for path in (*page.parent.glob("*.csv"), tmp_path / "scores.csv"):
        for row in csv.reader(path.open(newline="")):
            assert not any(re.match(r"[=@\t\r]|[-+][^\d.]", cell) for cell in row), (path, row)


def test_a_reviewers_page_shows_a_judges_words_only():
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
    from data_recipes.review_page import _judgement

    scores = dict.fromkeys(CRITERIA, 7)
    verdict = {"scores": json.dumps(scores), "crossed": json.dumps({"<img src=x onerror=a()>|": scores})}
    verdict |= {"accepted": False, "reason": MARKDOWN, "comment": SCRIPT + MARKDOWN + "\n\n# heading"}
    text = _judgement(SimpleNamespace(verdict=verdict, row={"task": "a_b<i>"}, decision=None))
    shown = Tags(MARKED.render(text))
    assert {tag for tag, _ in shown.tags} <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert SCRIPT in shown.text and MARKDOWN in shown.text


def test_a_data_sets_card_shows_what_models_wrote():
    import jinja2

    source = (CHECKOUT / "data_recipes/card.md.j2").read_text()
    for name in ("sample.instruction", "model", "part", "reason"):  # of models, of the data, of their errors
        assert f"{{{{ {name} | text }}}}" in source, name
    environment = jinja2.Environment()
    environment.filters["text"] = markdown_text
    row = environment.from_string("| a | b |\n|---|---|\n| {{ x | text }} | ![](own.png) |").render(x=MARKDOWN)
    assert [tag for tag, _ in Tags(MARKED.render(row)).tags].count("img") == 1


def test_no_text_commands_a_terminal(tmp_path, capsys):
    say("name", TERMINAL, "next\nline")
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and told.rstrip("\n").isprintable() and "\\x1b[2J" in told
    assert printable("naïve 日本 👩‍🔬\nهذا\t.") == "naïve 日本 👩‍🔬\nهذا\t."
    name = tmp_path / f"a{TERMINAL.replace('/', '')}"
    name.mkdir()
    (name / "metadata.jsonl").write_text('{"source": "\\u001b[2Jx.png", "target": "b.png", "instruction": "c"}\n')
    for place in (name, tmp_path / f"none{TERMINAL}"):
        done = run("imvideoedit.data.check", place)
        assert done.returncode == 2
        assert all(character.isprintable() or character in "\n\t" for character in done.stdout + done.stderr), place


@pytest.mark.parametrize(
    "name", ["-y.mp4", "%03d.mp4", "concat:a.mp4", "a'b\";$(touch x).mp4", "pipe:1.mp4", "a,b=c:d.mp4"]
)
def test_ffmpeg_takes_names_and_texts_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    texts = {"comment": f"{SCRIPT}{FORMAT};\\=#\n[CHAPTER]\nx=1", "title": "-i /etc/passwd"}
    write_video(name, np.zeros((3, 32, 32, 3), np.uint8), fps=4, metadata=texts)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read_video(name)[0].shape == (3, 32, 32, 3)
    assert texts.items() <= read_metadata(name).items()


def test_no_shell_and_no_text_for_a_format():
    """Programs get their arguments as a list; what is logged is no format of its own."""
    for path, node in sources():
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        where = f"{path}:{node.lineno}"
        assert called not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput"), where
        assert not any(each.arg == "shell" for each in node.keywords), where
        for each in node.keywords:  # models come without code of their own
            assert each.arg != "trust_remote_code" or ast.unparse(each.value) == "False", where
        if re.search(r"(?i)\b(log|logger|getLogger\(.*\)|LOG)\.(debug|info|warning|error|exception|critical)$", called):
            assert isinstance(node.args[0], ast.Constant), where
        if called.endswith("Environment") and path.name != "card.py":  # which writes Markdown
            assert any(each.arg == "autoescape" for each in node.keywords), where


def test_html_of_the_page_is_escaped():
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
    from imvideoedit.app.texts import message, problem

    for shown in (message(SCRIPT), problem(SCRIPT)):
        assert [tag for tag, _ in Tags(shown).tags] == ["p"] and html.escape("<script>") in shown
