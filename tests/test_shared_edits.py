"""One edit by several processes: equal to one process's, each with its part, and one word of what goes wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.edit import main
from imvideoedit.editing.edit_together import device_of_process
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.video.reader import read_video, write_video
from imvideoedit.wan.token_split import TokenSplit
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, Thing
from tests.processes import PATIENCE, Command, command_environment
from tests.test_methods import ROWS, name_of

pytestmark = pytest.mark.slow

FRAMES = 33  # nine latent frames, in three windows of five, which two processes share as three and two
SCENE = Scene("beige", "plain", (Thing("box", "red", motion="moving right", x=0.3, y=0.5, size="large"),))
WORDS = "make the red box blue"
OPTIONS = (
    *("--device", "cpu", "--codec", "lossless", "--keep", 0, "--steps", 2, "--max-frames", 17, "--overlap", 8),
    *("--guidance", 2, "--source-guidance", 1.5),
)
FRAME_TOKENS = 64
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def together(
    module: str, *arguments: Any, count: int = 2, before: Sequence[Callable[[], Any] | None] = (None, None), **options
) -> list[subprocess.CompletedProcess]:
    """A command by several processes, as a launcher would start them but for ending the others when one fails.

    Args:
        before: of each process, see ``Command``; of all others none.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(count):
        env = command_environment() | {
            name: str(value) for name, value in {**own, "RANK": rank, "LOCAL_RANK": rank}.items()
        }
        first = before[rank] if rank < len(before) else None
        started.append(Command(module, *arguments, env=env, before=first, **options))
    done = []
    for process in started:
        out, err = process.communicate()
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


@pytest.mark.parametrize("count", [2, 3])
def test_every_method_gives_what_each_process_gives_alone(count):
    """Five frames by two or three processes: three and two, or two, two and one."""
    done = together("tests.shared_passes", count=count)
    for each in done:
        assert each.returncode == 0, each.stderr
    frames = [3 / 5, 2 / 5] if count == 2 else [2 / 5, 2 / 5, 1 / 5]
    for row, *said in zip(ROWS, *(each.stdout.splitlines() for each in done), strict=True):
        names, *figures = zip(*(line.rsplit(" ", 4) for line in said), strict=True)
        differences, tokens, kept, sent = (list(map(float, each)) for each in figures)
        assert set(names) == {name_of(row)} and max(differences) < 1e-4, said
        # Only Φ needs whole frames; passes without it are shared evenly.
        shares = frames if issubclass(row.kind, TwoStreamMethod) else [1 / count] * count
        assert tokens == pytest.approx(shares, abs=0.05) and sum(tokens) == pytest.approx(1, abs=1e-5), said
        cached = row.options.get("source_stream") == "cached"
        assert kept == pytest.approx(frames if cached else [1] * count, abs=1e-5), said
        # Queries, keys and values of the own tokens, and the result of the others', but for the own share of the heads.
        assert sum(sent) == pytest.approx(4 * (count - 1) / count, rel=1e-4), said


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 60))
def test_parts_are_whole_frames_in_order_and_as_even_as_can_be(count, frames, unit):
    class Split(TokenSplit):
        count = property(lambda self: self.group)

    split = Split(count)
    if frames < count:
        with pytest.raises(UserError, match=f"{count} processes cannot share a window of {frames} latent frame"):
            split.parts(frames * unit, unit)
        return
    parts = split.parts(frames * unit, unit)
    assert [parts[0].start, *(part.stop for part in parts)] == [*(part.start for part in parts), frames * unit]
    sizes = [(part.stop - part.start) / unit for part in parts]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] in (0, 1) and min(sizes) >= 1


# An edit.


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    write_video(path, render(SCENE, FRAMES), fps=8)
    return path


@pytest.fixture(scope="module")
def alone(clip, tmp_path_factory) -> Path:
    """The folder of an edit by one process."""
    folder = tmp_path_factory.mktemp("alone")
    env = command_environment()
    process = Command("tests.shared_edit", folder, clip, WORDS, "--output", folder / "out.mp4", *OPTIONS, env=env)
    assert process.communicate()[1].splitlines()[-1:] and process.returncode == 0
    return folder


def assert_same_edit(alone: Path, shared: Path) -> None:
    one, two = (torch.load(folder / "latents.pt", weights_only=True) for folder in (alone, shared))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
    videos = [read_video(folder / "out.mp4")[0].astype(int) for folder in (alone, shared)]
    assert np.abs(videos[0] - videos[1]).max() <= 1 and (videos[0] != videos[1]).mean() < 1e-3


def facts(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"facts-{rank}.json").read_text())


def test_torchrun_gives_the_edit_of_one_process(clip, alone, tmp_path):
    """With windows, guidance by text and by source, and an uneven number of frames."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    rest = ["tests.shared_edit", tmp_path, clip, WORDS, "--output", tmp_path / "out.mp4", *OPTIONS]
    given = {"env": command_environment(), "capture_output": True, "text": True, "timeout": PATIENCE}
    done = subprocess.run([*command, "-m", *map(str, rest)], **given)
    assert done.returncode == 0, done.stderr
    assert_same_edit(alone, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts-0.json", "facts-1.json", "latents.pt", "out.mp4"]
    assert done.stdout.count("wrote") == 1 and done.stderr.count("note: ") == 1 and "6/6 passes" in done.stderr
    whole, first, second = facts(alone, 0), facts(tmp_path, 0), facts(tmp_path, 1)
    # Passes without the adapter are shared by tokens, so that the second process has up to half of them.
    assert (whole["most"], first["most"], second["most"]) == (5 * FRAME_TOKENS, 3 * FRAME_TOKENS, 5 * FRAME_TOKENS / 2)
    assert first["tokens"] + second["tokens"] == whole["tokens"]
    assert first["parts"] == ["vae", "text_encoder", "tokenizer"] and second["parts"] == []


def without_memory() -> None:
    """Nothing of the source is kept from step to step."""
    # Below nothing, as what the weights hold already counts as room.
    psutil.virtual_memory = lambda: SimpleNamespace(available=-(2**30), total=0)


def test_the_first_process_decides_for_all_what_is_kept(clip, alone, tmp_path):
    output = ("--output", tmp_path / "out.mp4")
    done = together("tests.shared_edit", tmp_path, clip, WORDS, *output, *OPTIONS, before=(without_memory, None))
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    assert_same_edit(alone, tmp_path)
    assert "the source encoded anew at each step" in done[0].stderr
    assert facts(tmp_path, 0)["tokens"] > facts(alone, 0)["tokens"] * 3 / 5
    assert done[1].stdout == done[1].stderr == ""


# What goes wrong.


def edited(clip: Path, folder: Path, *options: Any, **more: Any) -> list[subprocess.CompletedProcess]:
    own = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True)) | {"--output": folder / "out.mp4"}
    own |= dict(zip(options[::2], options[1::2], strict=True))
    return together("imvideoedit.edit", clip, WORDS, *(each for pair in own.items() for each in pair), **more)


def assert_one_line(done: Sequence[subprocess.CompletedProcess], folder: Path, *words: str, teller: int = 0) -> None:
    """All ended with 2, one of them in one line, and nothing was written."""
    assert [each.returncode for each in done] == [2] * len(done), [each.stderr for each in done]
    said = [[line for line in each.stderr.splitlines() if line.startswith("error: ")] for each in done]
    assert [len(lines) for lines in said] == [int(rank == teller) for rank in range(len(done))], said
    assert all(word in said[teller][0] for word in words), said
    assert not any("Traceback" in each.stderr for each in done)
    assert all(each.stdout == "" for each in done)
    # Torch itself may warn of processes that went before.
    assert not any(word in each.stderr for each in done[1:] for word in ("note: ", "passes", "prompt: "))
    assert list(folder.iterdir()) == []


def fail_to_load() -> None:
    from imvideoedit.editing import edit_together

    def load(*arguments: Any, **options: Any) -> None:
        raise UserError("the disk of this machine is gone; mount it")

    edit_together.load_pipeline = load


def fail_in_a_pass(error: Callable[[], Any], passes: int = 3) -> None:
    """From the third pass on."""
    left = iter(range(passes))
    run = TokenSplit.run

    def failing(self: TokenSplit, *arguments: Any) -> torch.Tensor:
        if next(left, None) is None:
            error()
        return run(self, *arguments)

    TokenSplit.run = failing


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def break_a_rule() -> None:
    raise ValueError("a bug")


def test_what_one_cannot_load_is_told_by_the_first(clip, tmp_path):
    done = edited(clip, tmp_path, before=(None, fail_to_load))
    assert_one_line(done, tmp_path, "process 1 of 2: the disk of this machine is gone")


def test_a_missing_video_ends_all(tmp_path):
    done = edited(tmp_path / "no.mp4", tmp_path)
    assert_one_line(done, tmp_path, "there is no video at")


def test_a_window_of_too_few_frames_is_told_once(clip, tmp_path):
    done = edited(clip, tmp_path, "--max-frames", 1, "--overlap", 0)
    assert_one_line(done, tmp_path, "2 processes cannot share a window of 1 latent frame; start fewer")


def test_heads_that_cannot_be_shared_are_told_once(clip, tmp_path):
    assert_one_line(edited(clip, tmp_path, count=3), tmp_path, "3 processes cannot share 4 attention heads; start 2")


def test_a_cache_that_sees_a_part_is_refused(clip, tmp_path):
    assert_one_line(edited(clip, tmp_path, "--cache", 0.1), tmp_path, "cache is 0.1", "set --cache 0")


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_runs_out_in_a_pass_ends_all(clip, tmp_path, rank):
    fail = partial(fail_in_a_pass, run_out_of_memory)
    done = edited(clip, tmp_path, before=(fail, None) if rank == 0 else (None, fail))
    assert_one_line(done, tmp_path, f"process {rank} of 2: the edit does not fit into memory; give", teller=rank)


def test_what_nobody_expects_of_another_process_is_one_line(clip, tmp_path):
    done = edited(clip, tmp_path, before=(None, partial(fail_in_a_pass, break_a_rule)))
    assert_one_line(done, tmp_path, "process 1 of 2: ValueError: a bug", teller=1)


def note_who_leads(place: Path) -> None:
    place.write_text(str(os.getpid()))


def fail_and_end_the_first(place: Path) -> None:
    os.kill(int(place.read_text()), signal.SIGTERM)
    run_out_of_memory()


def test_a_first_process_that_the_launcher_ends_leaves_no_half_written_file(clip, tmp_path):
    place = clip.with_name("leader")
    fail = partial(fail_in_a_pass, partial(fail_and_end_the_first, place))
    done = edited(clip, tmp_path, before=(partial(note_who_leads, place), fail))
    assert_one_line(done, tmp_path, "process 1 of 2: the edit does not fit into memory", teller=1)


def test_a_process_that_is_killed_ends_the_other(clip, tmp_path):
    first, second = edited(clip, tmp_path, before=(None, partial(fail_in_a_pass, be_killed)))
    assert second.returncode == -signal.SIGKILL
    assert_one_line([first], tmp_path, "another process of this edit was ended")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compile", "--device", "cpu"], "--compile is not for several processes"),
        (["--device", "cuda:0"], "--device cuda:0 is not for several processes"),
        (["--device", "cpu", "--device", "cpu"], "--device cpu cpu is not for several processes"),
        pytest.param(["--device", "cuda"], "--device cuda cannot be used here", marks=without_gpu),
        (["--steps", "0"], "--steps is 0"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_what_several_processes_do_not_take_is_told_once(arguments, words, rank, clip, monkeypatch, capsys):
    launched(monkeypatch, rank)
    with pytest.raises(SystemExit) as ended:
        main([str(clip), WORDS, *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert (said.startswith(f"error: {words}") and len(said.splitlines()) == 1) if rank == 0 else said == ""


def test_a_list_is_for_one_process(clip, monkeypatch, capsys):
    launched(monkeypatch, 0)
    with pytest.raises(SystemExit):
        main([str(clip.parent), WORDS])
    assert "is a list of edits, each of which one process makes; start a single one" in capsys.readouterr().err


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    launched(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert device_of_process(None) == device_of_process(["cuda"]) == torch.device("cuda:1")
    assert device_of_process(["cpu"]) == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    with pytest.raises(UserError, match="9 processes share 8 GPUs here, but each takes one of its own; start fewer"):
        device_of_process(None)


def launched(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "none"}.items():
        monkeypatch.setenv(name, value)
