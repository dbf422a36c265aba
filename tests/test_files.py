"""Outputs appear complete or not at all, in an order that a power cut cannot harm, and kills leave nothing for good."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import cache_folder, replacing, replacing_folder
from imvideoedit.video.reader import write_video
from tests.processes import command_environment

WRITE = """
import os, sys, time
from pathlib import Path
from imvideoedit.common.files import replacing{0}
with replacing{0}(Path(sys.argv[1])) as temporary:
    {1}
    print(temporary, flush=True)
    {2}
"""
FILE = "temporary.write_text(sys.argv[2])"
FOLDER = "(temporary / 'a').write_text(sys.argv[2])"


def writing(path: Path, text: str, folder: bool = False, then: str = "sys.stdin.read()") -> subprocess.Popen:
    """A process that has written its temporary file, and waits."""
    code = WRITE.format("_folder" if folder else "", FOLDER if folder else FILE, then)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), text], text=True, env=command_environment(), **pipes
    )


def killed(path: Path, folder: bool = False) -> Path:
    """The temporary file of a process that was killed while it wrote."""
    with writing(path, "half", folder) as process:
        temporary = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert temporary.exists() and temporary.parent == path.parent and temporary.name.startswith(".")
    return temporary


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "out.mp4"
    temporary = killed(path)
    assert not path.exists() and temporary.suffix == ".mp4"
    with replacing(path) as again:
        assert again == temporary and again.read_bytes() == b""
        again.write_text("whole")
    assert [each.name for each in tmp_path.iterdir()] == ["out.mp4"] and path.read_text() == "whole"


def test_the_next_folder_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "out"
    temporary = killed(path, folder=True)
    temporary.with_name(f"{temporary.name}.old").mkdir()
    path.mkdir()
    (path / "before").touch()
    with replacing_folder(path) as again:
        assert again == temporary and not list(again.iterdir())
        (again / "b").touch()
    assert [str(each.relative_to(tmp_path)) for each in sorted(tmp_path.rglob("*"))] == ["out", "out/b"]


@pytest.mark.parametrize("folder", [False, True])
def test_two_writers_at_a_time_do_not_touch_each_others_file(tmp_path, folder):
    path = tmp_path / "out"
    with writing(path, "first", folder) as first:
        one = first.stdout.readline()
        with writing(path, "second", folder) as second:
            assert one != second.stdout.readline()
            second.communicate("")
        read = (path / "a" if folder else path).read_text
        assert read() == "second"
        first.communicate("")
    assert read() == "first" and [each.name for each in tmp_path.iterdir()] == ["out"]


def test_many_threads_write_one_file_whole(tmp_path):
    path, texts = tmp_path / "out.json", [str(number) * 5000 for number in range(8)]

    def write(text: str) -> None:
        for _ in range(20):
            with replacing(path) as temporary:
                temporary.write_text(text)
            assert path.read_text() in texts

    failed: list[BaseException] = []

    def guarded(text: str) -> None:
        try:
            write(text)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_another_users_leftover_or_a_link_is_not_followed(tmp_path):
    path, victim = tmp_path / "out.txt", tmp_path / "victim"
    victim.write_text("precious")
    with replacing(path) as temporary:
        pass
    temporary.symlink_to(victim)
    with replacing(path) as other:
        assert other != temporary
        other.write_text("mine")
    assert path.read_text() == "mine" and victim.read_text() == "precious"


def test_a_failed_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def order(monkeypatch) -> list[tuple[str, str]]:
    """What is synced and renamed, as it happens."""
    seen: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(number):
        seen.append(("sync", Path(os.readlink(f"/proc/self/fd/{number}")).name))
        return fsync(number)

    def moved(what):
        return lambda old, new, **rest: (seen.append(("rename", Path(new).name)), what(old, new, **rest))[1]

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    return seen


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, order):
    with replacing(tmp_path / "out.txt") as temporary:
        temporary.write_text("bytes")
        assert not order
    assert order == [("sync", temporary.name), ("rename", "out.txt"), ("sync", tmp_path.name)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_a_picture_of_which_the_disk_takes_a_part_is_an_error(tmp_path, suffix):
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    write_video(tmp_path / f"whole{suffix}", frame, fps=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / f"whole{suffix}").stat().st_size - 8, hard))
    try:
        with pytest.raises(UserError, match="could not write"):
            write_video(tmp_path / f"part{suffix}", frame, fps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.stem for path in tmp_path.iterdir()] == ["whole"]


def test_all_of_a_folder_is_on_the_disk_before_its_name(tmp_path, order):
    with replacing_folder(tmp_path / "out") as temporary:
        (temporary / "in").mkdir()
        (temporary / "in/a").write_text("bytes")
    assert set(order[:3]) == {("sync", "a"), ("sync", "in"), ("sync", temporary.name)}
    assert order[3:] == [("rename", "out"), ("sync", tmp_path.name)]


def test_a_link_stays_a_link_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "elsewhere/file.txt")
    for text in ("first", "second"):
        with replacing(tmp_path / "link.txt") as temporary:
            temporary.write_text(text)
        assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "elsewhere/file.txt").read_text() == text
    assert {path.name for path in tmp_path.rglob("*")} == {"elsewhere", "link.txt", "file.txt"}


def test_a_user_without_a_home_is_told_in_one_line(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="set HOME, or IMVIDEOEDIT_CACHE"):
        cache_folder()
