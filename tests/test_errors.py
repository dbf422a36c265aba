"""Commands end in one line for what a user can cause, and outlast the reader of their output."""

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from imvideoedit.common.errors import LONGEST, UserError, exit_cleanly, lasting_output, one_line
from imvideoedit.common.files import check_name, content_hash, replacing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC])
def test_what_the_file_system_refuses_is_one_line(capsys, number):
    @exit_cleanly
    def main():
        raise OSError(number, os.strerror(number), "some/file")

    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and "some/file" in said and said.count("\n") == 1


def test_errors_that_no_user_causes_keep_their_traceback():
    @exit_cleanly
    def main():
        raise FileNotFoundError(errno.ENOENT, "of our own")

    with pytest.raises(FileNotFoundError):
        main()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a\n b"), "a b"),
        (ValueError("a\nb"), "ValueError: a b"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_any_error_is_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize("buffering", [0, 1, -1])
def test_output_takes_any_text_and_outlasts_its_reader(monkeypatch, buffering):
    reader, writer = os.pipe()
    # As Python makes it with PYTHONUNBUFFERED where there is no buffer.
    raw = open(writer, "wb", buffering if buffering == 0 else -1)
    stream = io.TextIOWrapper(raw, encoding="ascii", line_buffering=buffering == 1, write_through=buffering == 0)
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        print("caf\udce9", "ä", flush=True)
        assert os.read(reader, 100) == b"caf\\udce9 \\xe4\n"
        os.close(reader)
        for _ in range(3):
            print("nobody reads this", flush=True)
        os.write(sys.stdout.fileno(), b"nor what a library writes")
    assert sys.stdout is stream
    stream.close()


def test_temporary_names_are_no_longer_than_names_may_be(tmp_path):
    path = tmp_path / ("ä" * 125 + ".mp4")
    with replacing(path) as temporary:
        temporary.write_text("all of it")
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path
    assert path.read_text() == "all of it"


@pytest.mark.parametrize(
    ("name", "words"), [("a" * 256, "256 bytes"), ("\ud83d", "half a character"), ("a\0", "zero byte")]
)
def test_names_that_no_file_can_have_are_refused(name, words):
    with pytest.raises(UserError, match=words):
        check_name(Path(name))
    check_name(Path("a" * 255))


def test_a_content_hash_reads_every_byte(tmp_path):
    path = tmp_path / "file"
    whole = bytearray(3 * 2**20 + 1)
    hashes = set()
    for place in (0, 2**20, len(whole) - 1):
        whole[place] ^= 1
        path.write_bytes(whole)
        hashes.add(content_hash(path))
    assert len(hashes) == 3


def test_an_error_is_one_line_whatever_it_quotes():
    error = UserError("no \x1b[31mfile\r\n'a\u202eb\x85c'\0;\tremove it \ud83d \U0001f468\u200d\U0001f469")
    assert str(error) == "no \\x1b[31mfile 'a\\u202eb c'\\x00; remove it \\ud83d \U0001f468\u200d\U0001f469"
    assert one_line(ValueError("a\x1bb\nc")) == "ValueError: a\\x1bb c"
    long = str(UserError(f"no file {'x' * 90_000}; check the path"))
    assert len(long) < 1.1 * LONGEST and long.startswith("no file xx") and long.endswith("xx; check the path")
