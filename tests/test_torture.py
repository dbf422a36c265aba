"""The fuzzing and the bit flips of `make torture`, for a moment; and that they report what they are there to find."""

import ctypes
import os
import time
from random import Random

import pytest

from imvideoedit.common.errors import UserError
from tests.torture import bit_flips, fuzz_json, fuzz_media, fuzz_tensors, fuzz_texts
from tests.torture.__main__ import PARTS, main
from tests.torture.fuzzing import Target, fuzz
from tests.torture.table import Row, table

OURS = {
    module.__name__.split(".")[-1]: module for module in (bit_flips, fuzz_json, fuzz_media, fuzz_tensors, fuzz_texts)
}


def crash(path):
    ctypes.string_at(0)


def fill_memory(path):
    bytearray(2**30)


def loop(path):
    while True:
        pass


def refuse_badly(path):
    error = UserError("two\nlines")
    type(error).__str__ = Exception.__str__  # in this worker alone
    raise error


FAULTS = {
    "KeyError at": lambda path: {}["x"],
    "AssertionError at": lambda path: (_ for _ in ()).throw(AssertionError("not finite")),
    "SIGSEGV": crash,
    "memory": fill_memory,
    "SIGPROF: more than": loop,
    "exit code 7": lambda path: os._exit(7),
    "with the letter": refuse_badly,
    "a good seed is refused": lambda path: (_ for _ in ()).throw(UserError("no")),
}


@pytest.mark.parametrize(("words", "check"), FAULTS.items(), ids=FAULTS)
def test_every_kind_of_failure_is_reported_with_its_mutant(tmp_path, monkeypatch, words, check):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = Target("x", 2, "x.txt", [b"seed"], lambda data, rng: b"mutant", check, seconds=0.5, gigabytes=0.3)
    (row,) = fuzz("part", [target], 1.0)
    assert row.tried == 2 and row.failed and words in row.failed[0], row
    assert "x.txt" in row.failed[0] and not row.good
    assert any(path.read_bytes() in (b"seed", b"mutant") for path in tmp_path.rglob("*-x.txt"))


def test_what_is_accepted_or_refused_in_one_line_passes():
    def check(path):
        if path.read_bytes() != b"seed":
            raise UserError(f"{path} is no seed; give one")

    def mutate(data: bytes, rng: Random) -> bytes:
        return data + rng.randbytes(3)

    (row,) = fuzz("part", [Target("x", 50, "x", [b"seed"], mutate, check)], 1.0)
    assert row == Row("part: x", 50) and row.good


def test_a_hang_that_uses_no_processor_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tests.torture.fuzzing.PATIENCE", 0.2)
    (row,) = fuzz("part", [Target("x", 2, "x", [b"seed"], lambda data, rng: data, lambda path: time.sleep(600))], 1.0)
    assert row.tried == 2 and len(row.failed) == 2 and "hang" in row.failed[0]


def test_the_table_counts_and_names():
    text = table([Row("a", 3), Row("b", 4, ["x broke"], ["y"], ["no tmpfs"])])
    assert [line.split() for line in text.splitlines()[1:4]] == [
        ["a", "3", "0", "0"],
        ["b", "4", "1", "1"],
        ["in", "all", "7", "1", "1"],
    ]
    assert text.splitlines()[4:] == ["failed: b: x broke", "lost: b: y", "note: b: no tmpfs"]


def test_each_part_finds_the_fault_that_is_planted_in_it():
    assert PARTS.keys() >= set(OURS)
    assert main([*OURS, "--check"]) == 0


def test_a_part_that_finds_nothing_is_named(monkeypatch, capsys):
    monkeypatch.setattr("tests.torture.fuzz_json.run", lambda scale, planted: iter([Row("x", 9)]))
    assert main(["fuzz_json", "--check"]) == 1
    assert "not found: fuzz_json" in capsys.readouterr().out
    assert main(["fuzz_json"]) == 0
