"""What a model's text holds, what tells two questions apart, and what is kept on disk."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from imvideoedit.clients.answers import AnswerCache, Question, Unanswered, fitting_json, json_objects

PICTURE = np.full((8, 12, 3), 200, dtype=np.uint8)


class Verdict(BaseModel):
    """A judgement."""

    score: int
    why: str


NOISE = st.text('{}[]":,\\ \n`a0é', max_size=60)


@given(NOISE, st.integers(), st.text(max_size=20), NOISE)
def test_the_answer_is_found_in_any_noise(before, score, why, after):
    answer = json.dumps({"score": score, "why": why})
    assert fitting_json(before + answer + after, Verdict) == answer


@given(NOISE)
def test_what_is_taken_for_json_is_json(text):
    for found in json_objects(text):
        assert found in text and isinstance(json.loads(found), dict)
    with pytest.raises(Unanswered):
        fitting_json(text, Verdict)


def test_depth_and_halves_are_no_answers():
    for text in ('{"score":' * 2_000, '{"score": 3, "why": "cut', '{"score": "three", "why": ""}', ""):
        with pytest.raises(Unanswered):
            fitting_json(text, Verdict)


def test_answers_are_whole_or_absent(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path)

    def killed(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(OSError, match="killed"):
        cache.write("abc", '{"score": 3, "why": "so"}')
    assert cache.read("abc", Verdict) is None and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_makes_a_question_another_one():
    def key(parts=(PICTURE, "a"), schema=Verdict, system="", model="m", temperature=0.0) -> str:
        return Question(parts, schema, system).key(model, temperature)

    class Other(BaseModel):
        score: int

    others = [
        key([PICTURE + 1, "a"]),
        key([PICTURE.reshape(12, 8, 3), "a"]),
        key([PICTURE, "b"]),
        key(["a", PICTURE]),
        key([PICTURE.tobytes(), "a"]),
        key(schema=Other),
        key(system="s"),
        key(model="n"),
        key(temperature=0.5),
    ]
    assert key() == key([PICTURE[:, ::-1], "a"]) and len({key(), *others}) == 1 + len(others)
