"""Editing by an adapter that needs an edited first frame: given, made by another adapter, or refused in one line."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.edit import main
from imvideoedit.editing.edit_file import edit_file, load_pipeline
from imvideoedit.editing.first_frame import chosen_editor
from imvideoedit.editing.job import Job
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.methods.freeprop import SCALES, FreeProp
from imvideoedit.video.reader import read_video, write_video
from imvideoedit.wan.backbone import load_backbone
from tests.conftest import awaken

INSTRUCTION = "make the red box blue"
SAMPLER = SamplingConfig(max_area=4096, max_frames=5, overlap=0, steps=1, guidance=1.0)


def freeprop_adapter(backbone: str, path: Path, heads) -> Path:
    loaded = load_backbone(backbone, device="cpu")
    method = FreeProp(rank=4, width=16, heads=heads)
    torch.manual_seed(0)
    method.install(loaded.transformer)
    awaken(method)
    save_adapter(method, path, AdapterHeader.describe(method, loaded, {"sampler": vars(SAMPLER)}))
    return path


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return freeprop_adapter("nano", tmp_path_factory.mktemp("nano") / "freeprop.safetensors", "bundled")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, wan_folder) -> Path:
    """For a backbone that the bundled adapter is not of."""
    path = tmp_path_factory.mktemp("tiny") / "elsewhere.safetensors"
    return freeprop_adapter(str(wan_folder), path, [[1, 0]] * 2)


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (7, 32, 48, 3), np.uint8)
    write_video(tmp_path / "clip.mkv", frames, 10, codec="lossless")
    return tmp_path / "clip.mkv"


def picture(path: Path, height: int, width: int) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_without_a_first_frame_the_bundled_adapter_makes_it_and_says_so(adapter, clip, tmp_path, capsys):
    command = [clip, INSTRUCTION, "--adapter", adapter, "--codec", "lossless"]
    main([str(each) for each in (*command, "--output", tmp_path / "made.mkv")])
    said = capsys.readouterr().err
    notes = [line for line in said.splitlines() if "first frame" in line]
    assert len(notes) == 1 and notes[0].startswith("note: the first frame is made by ") and "--first-frame" in notes[0]
    # As if the user had edited the first frame so, and saved it without loss.
    frame = EditPipeline.from_pretrained(device="cpu")(read_video(clip)[0][:1], INSTRUCTION).frames[0]
    Image.fromarray(frame).save(tmp_path / "first.png")
    given = [*command, "--first-frame", tmp_path / "first.png", "--output", tmp_path / "given.mkv"]
    main([str(each) for each in given])
    assert "first frame" not in capsys.readouterr().err
    made, wanted = (read_video(tmp_path / name)[0] for name in ("made.mkv", "given.mkv"))
    assert made.shape == (7, 32, 48, 3) and np.array_equal(made, wanted)


def test_where_no_adapter_can_make_it_that_is_one_line(elsewhere, adapter, clip, tmp_path, capsys):
    words = refused(capsys, clip, INSTRUCTION, "--adapter", elsewhere)
    assert "needs the input first_frame (image), which is not given" in words
    assert "of another backbone; give --first-frame FILE, or --first-frame-adapter FILE" in words
    words = refused(capsys, clip, INSTRUCTION, "--adapter", adapter, "--first-frame-adapter", adapter)
    assert "which shall make it, needs first_frame" in words
    words = refused(capsys, clip, INSTRUCTION, "--adapter", adapter, "--first-frame-adapter", tmp_path / "none")
    assert "there is no first-frame-adapter at" in words
    assert not (tmp_path / "clip_edited.mp4").exists()


def test_a_first_frame_of_another_size_is_fitted_and_of_another_shape_refused(adapter, clip, tmp_path, capsys):
    pipeline = load_pipeline(ModelOptions(((adapter, 1.0),)), "cpu")
    for height in (32, 64):  # the source's own, and twice as large
        first = picture(tmp_path / f"{height}.png", height, height * 3 // 2)
        output = tmp_path / f"{height}.mkv"
        edit_file(pipeline, Job(clip, INSTRUCTION, output, codec="lossless", inputs={"first_frame": first}))
        assert read_video(output)[0].shape == (7, 32, 48, 3)
    tall = picture(tmp_path / "tall.png", 48, 32)
    words = refused(capsys, clip, INSTRUCTION, "--adapter", adapter, "--first-frame", tall)
    assert "is 32x48, but the source is 48x32; crop it to the same aspect ratio" in words


def test_a_video_as_first_frame_is_refused(adapter, clip, capsys):
    words = refused(capsys, clip, INSTRUCTION, "--adapter", adapter, "--first-frame", clip)
    assert str(clip) in words and "video" in words


def test_an_edit_made_with_another_editor_counts_as_another(adapter, elsewhere):
    plain = ModelOptions(((adapter, 1.0),))
    other = ModelOptions(((adapter, 1.0),), first_frame_adapter=elsewhere)
    assert plain.contents != other.contents and " after " in plain.contents
    assert " after " not in ModelOptions(((elsewhere, 1.0),)).contents, "no frame can be made"
    bundled = chosen_editor(adapter, None)
    assert bundled is not None and " after " not in ModelOptions(((bundled, 1.0),)).contents


def test_the_coefficients_of_a_video_are_computed_once(adapter, monkeypatch):
    pipeline = EditPipeline.from_pretrained(adapter=adapter, device="cpu")
    asked, seen = [], []
    of_videos, velocity = pipeline.method.position_scales, pipeline.method.velocity
    monkeypatch.setattr(pipeline.method, "position_scales", lambda z: asked.append(z.shape[2]) or of_videos(z))

    def watched(transformer, batch, known=None):
        seen.append((batch.source_BCFHW.shape[2], known))
        assert torch.equal(known, batch.conditions[SCALES])
        return velocity(transformer, batch, known)

    monkeypatch.setattr(pipeline.method, "velocity", watched)
    rng = partial(np.random.default_rng(0).integers, 0, 256, dtype=np.uint8)
    video, first = rng(size=(17, 32, 32, 3)), rng(size=(32, 32, 3))
    result = pipeline(video, INSTRUCTION, inputs={"first_frame": first}, steps=2)
    assert result.frames.shape == video.shape
    assert asked == [5], "once, of all five latent frames"
    assert len(seen) > 2 and {frames for frames, _ in seen} == {2}, "windows of two latent frames"
    assert all(torch.equal(known, seen[0][1]) for _, known in seen)
