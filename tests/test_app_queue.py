"""The web page's queue: one edit at a time, previews, cancelling, limits, and what the page says about them."""

import warnings
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")

from imvideoedit.app.frames import frame_pair, write_comparison
from imvideoedit.app.live import Edit
from imvideoedit.app.queue import MOST_OF_BROWSER, EditQueue, Limits, inspect
from imvideoedit.app.samples import SAMPLES, render_samples
from imvideoedit.app.texts import problem, progress
from imvideoedit.common.errors import Note, UserError, notes_in_one_line
from imvideoedit.editing.jobs import Job
from imvideoedit.video.display import enlarged, shown_size, thumbnail
from imvideoedit.video.reader import Clip, read_video, write_video
from imvideoedit.world.grammar import apply_instruction
from tests.processes import PATIENCE

LIMITS = Limits(megabytes=1, seconds=5)
FAST = {"steps": 2, "guidance": 1.0}


@pytest.fixture
def clip(tmp_path) -> Path:
    (tmp_path / "samples").mkdir()
    return render_samples(tmp_path / "samples")[0]


@pytest.fixture
def queue(bundled_pipeline):
    queue = EditQueue(bundled_pipeline, LIMITS)
    yield queue
    queue.close()


def edit_of(clip: Path, tab: str = "tab", **given) -> Edit:
    output = clip.parents[1] / f"{tab}-{len(list(clip.parents[1].iterdir()))}" / "clip_edited.mp4"
    output.parent.mkdir()
    return Edit(Job(clip, "remove the red box", output, settings=FAST | given), tab, f"browser of {tab}")


def wrong_files(folder: Path) -> dict[str, Path]:
    """A text, nothing, and sound alone, each named .mp4."""
    files = {name: folder / f"{name}.mp4" for name in ("text", "empty", "sound")}
    files["text"].write_text("this is no video\n" * 50)
    files["empty"].touch()
    with av.open(str(files["sound"]), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 44100), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return files


def test_samples_are_videos_whose_examples_the_grammar_knows(tmp_path):
    for sample, path in zip(SAMPLES, render_samples(tmp_path), strict=True):
        assert Clip(path).info.frames == 17
        for instruction in sample.instructions:
            assert apply_instruction(instruction, sample.prompt) not in (None, sample.prompt), instruction


@pytest.mark.parametrize(("name", "words"), [("text", "as a video"), ("empty", "empty"), ("sound", "only sound")])
def test_a_wrong_file_is_named_without_its_folder(tmp_path, name, words):
    with pytest.raises(UserError, match=words) as caught:
        inspect(wrong_files(tmp_path)[name], LIMITS)
    assert f"{name}.mp4" in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_limits_of_size_and_length(tmp_path):
    long = tmp_path / "long.mp4"
    write_video(long, np.zeros((12, 16, 16, 3), np.uint8), fps=2)
    with pytest.raises(UserError, match=r"long.mp4 lasts 6.0 s; at most 5 s .* start and end"):
        inspect(long, LIMITS)
    assert inspect(long, LIMITS, start=2, end=4).frames == 4
    with pytest.raises(UserError, match="at most 0.0001 MB"):
        inspect(long, Limits(0.0001, 60))
    with pytest.raises(UserError, match="upload it again"):
        inspect(tmp_path / "none.mp4", LIMITS)


def test_frames_are_enlarged_but_never_beyond_need():
    small, large = np.zeros((64, 48, 3), np.uint8), np.zeros((400, 200, 3), np.uint8)
    assert enlarged(small).shape == (320, 240, 3) and enlarged(large) is not small and enlarged(large).shape[0] == 400
    assert max(thumbnail(small).shape) == max(thumbnail(large).shape) == 160
    assert (
        shown_size(64, 64) == (320, 320) and shown_size(1080, 1920) == (404, 720) and shown_size(33, 500) == (32, 500)
    )


def test_frame_pairs_of_a_range_belong_together(tmp_path):
    levels = np.arange(0, 240, 20, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (12, 32, 32, 3))
    write_video(tmp_path / "in.mp4", frames, fps=4, codec="lossless")
    write_video(tmp_path / "out.mp4", frames[4:8], fps=4, codec="lossless")
    job = Job(tmp_path / "in.mp4", "none", tmp_path / "out.mp4", start=1.0, end=2.0)
    for index in (0, 3):
        source, edited = frame_pair(job, index)
        assert source.mean() == levels[4 + index] == edited.mean()
    assert np.array_equal(frame_pair(job, 99)[1], frame_pair(job, 3)[1])
    write_comparison(job, tmp_path / "both.mp4", lambda: None)
    both, info = read_video(tmp_path / "both.mp4")
    assert both.shape == (4, 320, 640, 3) and info.fps == 4
    assert np.abs(both.mean((1, 2, 3)) - levels[4:8]).max() < 3


def test_an_edit_shows_its_middle_frame_and_ends_in_the_history(queue, clip):
    edit = edit_of(clip, steps=4)
    queue.submit(edit)
    refused = edit_of(clip)
    with pytest.raises(UserError, match="cancel it"):
        queue.submit(refused)
    assert not refused.job.output.parent.exists()
    assert edit.finished.wait(PATIENCE) and edit.state == "done", edit.problem
    assert edit.preview is not None and edit.preview.shape == (64, 64, 3) and edit.share == 1
    assert Clip(edit.job.output).info.frames == Clip(edit.comparison).info.frames == 17
    assert edit.prompts is not None and "no red box" in edit.prompts.prompt
    assert queue.history("browser of tab") == [edit] and queue.history("another") == []
    assert edit.thumbnail is not None and max(edit.thumbnail.shape) == 160


def test_an_edit_with_a_preview_is_the_very_same_edit(queue, clip, bundled_pipeline):
    edit = edit_of(clip, keep=0.0)
    edit.job = replace(edit.job, codec="lossless")
    queue.submit(edit)
    assert edit.finished.wait(PATIENCE) and edit.prompts is not None and edit.preview is not None
    plain = bundled_pipeline(read_video(clip)[0], "", prompt=edit.prompts.prompt, keep=0.0, **FAST).frames
    assert np.array_equal(plain, read_video(edit.job.output)[0])


def test_the_notes_of_an_edit_reach_its_user_and_those_of_others_do_not(queue, clip):
    edit = edit_of(clip, keep=255.0)
    with notes_in_one_line():
        queue.submit(edit)
        warnings.warn(Note("of another thread"), stacklevel=1)
        assert edit.finished.wait(PATIENCE) and edit.state == "done", edit.problem
    assert len(edit.notes) == 1 and edit.notes[0].startswith("no pixel is edited") and "keep" in edit.notes[0]
    assert str(clip.parent) not in edit.notes[0]
    fine = edit_of(clip, "b")
    queue.submit(fine)
    assert fine.finished.wait(PATIENCE) and fine.notes == []


def test_edits_wait_for_each_other_and_can_be_cancelled_at_any_time(queue, clip):
    first, second, third = edit_of(clip, "a", steps=2000), edit_of(clip, "b"), edit_of(clip, "c")
    for edit in (first, second, third):
        queue.submit(edit)
    assert [queue.before(edit) for edit in (first, second, third)] == [0, 1, 2]
    assert "Waiting: 2 edits" in progress(third, 2)
    queue.cancel("b")
    assert second.finished.wait(PATIENCE) and second.state == "cancelled" and queue.before(third) == 1
    while first.share == 0:
        assert not first.finished.wait(0.05), first.problem
    queue.cancel("a")
    assert first.finished.wait(PATIENCE) and first.state == "cancelled"
    assert not any(edit.job.output.parent.exists() for edit in (first, second))
    assert third.finished.wait(PATIENCE) and third.state == "done", third.problem
    assert queue.history("browser of a") == []


def test_a_browser_does_not_fill_the_queue_with_its_tabs(queue, clip):
    edits = [edit_of(clip, f"tab {n}", steps=2000) for n in range(MOST_OF_BROWSER + 1)]
    for edit in edits:
        edit.browser = "one browser"
    for edit in edits[:-1]:
        queue.submit(edit)
    with pytest.raises(UserError, match="of yours are waiting"):
        queue.submit(edits[-1])
    other = edit_of(clip, "other")
    queue.submit(other)
    queue.cancel(None)
    assert other.finished.wait(PATIENCE) and edits[0].finished.wait(PATIENCE)


def test_results_beyond_those_kept_leave_nothing(queue, clip, monkeypatch):
    monkeypatch.setattr("imvideoedit.app.queue.MOST_KEPT", 1)
    edits = [edit_of(clip, tab) for tab in ("a", "b")]
    (edits[0].job.output.parent / "mask.png").touch()
    for edit in edits:
        queue.submit(edit)
    for edit in edits:
        assert edit.finished.wait(PATIENCE) and edit.state == "done", edit.problem
    assert [edit.job.output.parent.exists() for edit in edits] == [False, True]
    assert queue.history("browser of a") == [] and edits[1].comparison.exists()


def test_a_failing_edit_is_told_in_one_line_and_the_next_one_runs(queue, clip, capsys):
    damaged = clip.with_name("damaged.mp4")
    damaged.write_bytes(clip.read_bytes()[:400])
    failing, fine = edit_of(damaged), edit_of(clip, "b")
    queue.submit(failing)
    queue.submit(fine)
    assert failing.finished.wait(PATIENCE) and failing.state == "failed" and not failing.job.output.parent.exists()
    assert "damaged.mp4" in failing.problem and str(clip.parent) not in failing.problem and "\n" not in failing.problem
    assert fine.finished.wait(PATIENCE) and fine.state == "done"
    assert problem("a\n<b>") == '<p class="problem" role="alert">a &lt;b&gt;</p>'
    assert "Traceback" not in capsys.readouterr().err
