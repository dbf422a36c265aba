"""JSON that others wrote: used, or refused in one line that says where."""

import json
import re
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file

from imvideoedit.clients.answers import Unanswered, fitting_json
from imvideoedit.clients.budget import Budget
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import LARGEST, parse_json, read_checked, read_json, write_checked, write_json
from imvideoedit.data.records import open_records
from imvideoedit.data.shards import ShardStore
from imvideoedit.evaluation.edits.score_store import _read as read_score
from imvideoedit.evaluation.study.ratings import _read as read_rating
from imvideoedit.evaluation.suites.folders import read_benchmark
from imvideoedit.training.checkpoints import latest
from imvideoedit.wan.identity import _read as read_hashes

BAD = {
    "empty": b"",
    "cut off": b'{"a": [1, 2',
    "not utf-8": b'{"a": "\xff\xfe"}',
    "nan": b'{"a": NaN}',
    "infinite": b'{"a": -Infinity}',
    "huge float": b'{"a": 1e999}',
    "huge whole number": b'{"a": ' + b"9" * 5000 + b"}",
    "beyond 64 bits": f'{{"a": {LARGEST}}}'.encode(),
    "half a surrogate pair": b'{"a": "\\ud83d"}',
    "such a key": b'{"\\udc00": 1}',
    "a key twice": b'{"a": 1, "a": 2}',
    "deep": b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
    "very deep": b"[" * 200_000,
    "null byte": b"\0",
    "two values": b"{} {}",
}
KINDS = {"list": b"[1]", "text": b'"a"', "number": b"1", "null": b"null", "true": b"true"}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_json_costs_one_line_with_the_place_and_a_remedy(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json: not JSON \(.*\); get it again") as caught:
        read_json(tmp_path / "x.json", object, "get it again")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_another_type_is_told_from_damage(content):
    with pytest.raises(UserError, match="row 3: not a JSON object; write it again"):
        parse_json(content, "row 3")


def test_good_json_is_read_as_it_is(tmp_path):
    value = {"a": [1, -2.5, None, True, "ü \U0001f600"], "b": {}, "c": LARGEST - 1, "d": 1 - LARGEST}
    (tmp_path / "x.json").write_text("\ufeff" + json.dumps(value), encoding="utf-8")
    assert read_json(tmp_path / "x.json") == value
    write_json(tmp_path / "y.json", value)
    assert read_json(tmp_path / "y.json") == value
    assert parse_json("[" * 60 + "]" * 60, "x", list)


@pytest.mark.parametrize("name", ["missing.json", "folder", "a\0b", "x" * 300], ids=repr)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_json(tmp_path / name)
    assert "\n" not in str(caught.value)


FOREIGN = BAD | KINDS | {"object": b"{}", "odd": b'{"a": [{}], "files": [], "spent": [], "methods": 3, "value": {}}'}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_every_reader_of_files_takes_any_content(tmp_path, content):
    for name in ("answers.json", "step-00000001.json", "metadata.jsonl", "ivebench_prompt.json", "list.json"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "step-00000001.ckpt").write_bytes(b"")
    path = tmp_path / "answers.json"
    assert latest(tmp_path) is None
    assert isinstance(read_hashes(path), dict)
    score = read_score(path)
    assert score is None or score == {}
    for reader in (
        lambda: read_rating(path),
        lambda: Budget(1.0, path).reserve(0.1),
        lambda: open_records(tmp_path)[0],
        lambda: open_records(tmp_path / "metadata.jsonl", "jsonl")[0],
        lambda: open_records(tmp_path / "list.json", "videox_fun")[0],
        lambda: read_benchmark("ivebench", tmp_path),
    ):
        with pytest.raises((UserError, IndexError)) as caught:
            reader()
        # Without lines there is no first row.
        assert not isinstance(caught.value, IndexError) or not content
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_shard_with_any_header_is_read(tmp_path, content):
    save_file({"a.x": torch.ones(2)}, tmp_path / "0.safetensors", {"checks": content.decode("latin-1")})
    store = ShardStore(tmp_path)
    assert store.missing(["b", "files"]) == ["b", "files"]


class Marks(BaseModel):
    mark: float


@pytest.mark.parametrize("mark", ["NaN", "1e999", "9" * 5000, '1, "mark": 2'])
def test_an_answer_with_values_that_json_lacks_is_no_answer(mark):
    with pytest.raises(Unanswered):
        fitting_json(f'so {{"mark": {mark}}}', Marks)
    assert fitting_json('so {"mark": NaN}, or rather {"mark": 3}', Marks) == '{"mark": 3}'


def test_no_other_place_parses_json():
    assert holding(r"json\.loads?\(") == {"common/json_file.py"}


def test_no_other_place_opens_foreign_tensors():
    assert holding(r"safe_open|load_file\b|safetensors\.torch import load|torch\.load\(") == {"common/tensor_file.py"}


def holding(calls):
    """Files of the package with such calls."""
    root = Path(__file__).parent.parent / "imvideoedit"
    return {path.relative_to(root).as_posix() for path in root.rglob("*.py") if re.search(calls, path.read_text())}


def test_damage_that_leaves_json_is_told_by_the_checksum(tmp_path):
    path, value = tmp_path / "x.json", {"mark": 3.5, "why": "good", "n": None, "more": {"é": [1]}}
    write_checked(path, value)
    assert read_checked(path) == value
    good, accepted = path.read_bytes(), 0
    for place in range(8 * len(good)):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            assert read_checked(path) == value
            accepted += 1
        except UserError as error:
            assert "is damaged" in str(error) or "not JSON" in str(error)
    assert accepted < 8  # of blanks


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path):
    write_json(tmp_path / "x.json", {"mark": 3.5, "why": "check"})
    assert read_checked(tmp_path / "x.json") == {"mark": 3.5, "why": "check"}
