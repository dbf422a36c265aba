"""What a model's text holds, what tells two questions apart, and what is kept on disk."""

import contextlib
import json
import pickle
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from imvideoedit.clients.answers import AnswerCache, Question, Refused, Unanswered, fitting_json
from imvideoedit.common.errors import UserError
from tests.processes import command_environment

PICTURE = np.full((8, 12, 3), 200, dtype=np.uint8)


class Verdict(BaseModel):
    """A judgement."""

    score: int
    why: str


class Anything(BaseModel):
    """Fits every object."""


NOISE = st.text('{}[]":,\\ \n`a0é', max_size=60)


@given(NOISE, st.integers(), st.text(max_size=20), NOISE)
def test_the_answer_is_found_in_any_noise(before, score, why, after):
    answer = json.dumps({"score": score, "why": why})
    assert fitting_json(before + answer + after, Verdict) == answer


@given(NOISE)
def test_only_complete_json_objects_are_found(text):
    with contextlib.suppress(Unanswered):
        found = fitting_json(text, Anything)
        assert found in text and isinstance(json.loads(found), dict)
    with pytest.raises(Unanswered):
        fitting_json(text, Verdict)


def test_depth_and_halves_are_no_answers():
    for text in ('{"score":' * 2_000, '{"score": 3, "why": "cut', '{"score": "three", "why": ""}', ""):
        with pytest.raises(Unanswered):
            fitting_json(text, Verdict)


ANSWER = '{"score": 3, "why": "so"}'


def test_processes_and_threads_lose_no_answer(tmp_path):
    code = (
        "import sys; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor\n"
        "from imvideoedit.clients.answers import AnswerCache\n"
        "write = lambda number: AnswerCache(Path(sys.argv[1])).write(f'{sys.argv[2]} {number}', sys.argv[3])\n"
        "list(ThreadPoolExecutor(4).map(write, range(25)))"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), name, ANSWER] for name in "ab"]
    processes = [subprocess.Popen(command, env=command_environment()) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    cache = AnswerCache(tmp_path)
    assert [cache.read(f"{name} {number}", Verdict) for name in "ab" for number in range(25)] == [ANSWER] * 50


def test_a_killed_writer_leaves_complete_answers(tmp_path):
    code = (
        "import itertools, sys; from pathlib import Path; from imvideoedit.clients.answers import AnswerCache\n"
        "for number in itertools.count():\n"
        "    AnswerCache(Path(sys.argv[1])).write(str(number), sys.argv[2]); print(number, flush=True)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), ANSWER]
    with subprocess.Popen(command, env=command_environment(), stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() != "5\n":
            assert process.poll() is None
        process.kill()
    cache = AnswerCache(tmp_path)
    cache.write("more", ANSWER)
    assert [cache.read(key, Verdict) for key in [*map(str, range(6)), "more"]] == [ANSWER] * 7
    assert {path.name for path in tmp_path.iterdir()} <= {"answers.sqlite", "answers.sqlite-journal"}


def test_a_damaged_file_is_set_aside_and_a_folder_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"no database at all" * 100)
    cache = AnswerCache(tmp_path)
    assert cache.read("a", Verdict) is None
    cache.write("a", ANSWER)
    assert cache.read("a", Verdict) == ANSWER and (tmp_path / "answers.damaged").read_bytes().startswith(b"no data")
    with pytest.raises(UserError, match="IMVIDEOEDIT_CACHE"):
        AnswerCache(tmp_path / "answers.sqlite").write("a", ANSWER)


def test_nothing_that_is_read_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    cache = AnswerCache(tmp_path)
    cache.write("a", ANSWER)
    with contextlib.closing(sqlite3.connect(tmp_path / "answers.sqlite")) as connection, connection:
        connection.execute("UPDATE checked SET answer = ?", [pickle.dumps(Trap())])
    assert cache.read("a", Verdict) is None and not (tmp_path / "run").exists()


def test_a_bit_that_flipped_in_an_answer_or_a_refusal_is_not_believed(tmp_path):
    cache, path = AnswerCache(tmp_path), tmp_path / "answers.sqlite"
    cache.write("a", ANSWER)
    cache.write("b", None, "I do not judge this")
    whole = path.read_bytes()
    for text, key in ((ANSWER.encode(), "a"), (b"I do not judge this", "b")):
        (place,) = (each.start() for each in re.finditer(re.escape(text), whole))
        for bit in range(8 * len(text)):
            flipped = bytearray(whole)
            flipped[place + bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert cache.read(key, Verdict) is None
    path.write_bytes(whole)
    assert cache.read("a", Verdict) == ANSWER


def test_answers_of_before_there_were_checksums_are_read(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "answers.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE answers (key PRIMARY KEY, answer, refusal)")
        connection.execute("INSERT INTO answers VALUES ('a', ?, NULL), ('b', NULL, 'no')", [ANSWER])
    cache = AnswerCache(tmp_path)
    assert cache.read("a", Verdict) == ANSWER
    with pytest.raises(Refused, match="no"):
        cache.read("b", Verdict)


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
