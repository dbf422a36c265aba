"""A folder has one writer at a time: named to others while it lives, and forgotten when it is killed."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from imvideoedit.common.errors import UserError
from imvideoedit.common.owner import FILE, owned
from imvideoedit.evaluate import run_suite
from imvideoedit.nano.pairs import NanoPairs
from tests.processes import command_environment

OWN = "import sys; from imvideoedit.common.owner import owned\n"
HOLD = OWN + "with owned(sys.argv[1], 'a test'):\n print('held', flush=True); {}"


def holding(folder, then: str = "sys.stdin.read()") -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD.format(then), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=command_environment(), **pipes)
    assert process.stdout.readline() == "held\n", process.communicate()
    return process


def test_the_second_process_is_told_who_owns_the_folder(tmp_path):
    first = holding(tmp_path / "run")
    with (
        pytest.raises(UserError, match=f"in use by a test, process {first.pid} on ") as caught,
        owned(tmp_path / "run", "x"),
    ):
        pass
    assert os.uname().nodename in str(caught.value)
    first.communicate("")
    with owned(tmp_path / "run", "x"):
        assert (tmp_path / "run" / FILE).exists()
    assert not (tmp_path / "run" / FILE).exists()


def test_a_killed_owner_is_followed_even_where_a_child_of_it_lives(tmp_path):
    child = "import os; pid = os.fork() or os.execlp('sleep', 'sleep', '60'); print(pid, flush=True); sys.stdin.read()"
    first = holding(tmp_path, child)
    pid = int(first.stdout.readline())
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        os.kill(pid, 0)  # still lives
        with owned(tmp_path, "x"):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        for pipe in (first.stdin, first.stdout, first.stderr):
            pipe.close()


@pytest.mark.parametrize("what", ["a test", "a\\ntest"])
def test_who_waits_follows_and_says_for_whom_in_one_line(tmp_path, what):
    first = holding(tmp_path)
    (tmp_path / FILE).write_text(f'{{"what": "{what}", "process": {first.pid}, "host": "here"}}')
    code = (
        "import sys; from imvideoedit.common.owner import owned\nwith owned(sys.argv[1], 'b', wait=True): print('mine')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=command_environment())
    assert f"waits for a test, process {first.pid}" in second.stdout.readline()
    assert second.poll() is None
    first.communicate("")
    assert second.communicate()[0] == "mine\n"


def test_further_processes_of_one_run_pass(tmp_path, monkeypatch):
    first = holding(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            with owned(tmp_path, "x"):
                pass
    first.communicate("")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), owned(tmp_path / "file", "x"):
        pass


def test_an_evaluation_owns_its_folder(tmp_path):
    ran: list[Path] = []
    config = OmegaConf.create({"suite": {"_target_": "builtins.dict", "_partial_": True}, "run_dir": str(tmp_path)})
    first = holding(tmp_path)
    with pytest.raises(UserError, match=f"in use by a test, process {first.pid}"), monkeyed(ran):
        run_suite(config)
    first.communicate("")
    assert not ran
    with monkeyed(ran):
        run_suite(config)
    assert ran == [tmp_path] and not (tmp_path / FILE).exists()


@contextmanager
def monkeyed(ran: list[Path]):
    """Inside, each suite is one that only notes its folder, in which nobody else may begin."""

    def suite(folder: Path) -> str:
        assert not may_begin(folder)
        ran.append(folder)
        return "a page"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imvideoedit.evaluate.instantiate", lambda _: suite)
        yield


def may_begin(folder: Path) -> bool:
    """Whether another process can own a folder now."""
    code = f"{OWN}with owned(sys.argv[1], 'another'): pass"
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, env=command_environment()).returncode == 0


@pytest.mark.parametrize("cached", [True, False])
def test_pairs_of_the_nano_world_are_encoded_by_the_owner_of_their_cache(tmp_path, monkeypatch, cached):
    seen: list[bool] = []
    monkeypatch.setattr("imvideoedit.nano.pairs.encoded_pairs", lambda folder, *_: seen.append(may_begin(tmp_path)))
    monkeypatch.setattr("imvideoedit.nano.pairs.Preparation.of", lambda *_: SimpleNamespace(inputs=(), transform=None))
    pairs = NanoPairs(pairs=2, cache=tmp_path if cached else None)
    module = SimpleNamespace(backbone=SimpleNamespace(name="nano", pixel_multiple=16), method=None)
    strategy = SimpleNamespace(barrier=lambda: None, root_device=torch.device("cpu"))
    trainer = {"lightning_module": module, "global_rank": 0, "world_size": 1, "strategy": strategy}
    pairs.trainer = SimpleNamespace(**trainer)
    pairs.setup("fit")
    assert seen == [not cached] * 2 and may_begin(tmp_path)
