"""Inputs of jobs: from command lines, rows and files to what the method gets, and by their contents in the metadata."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.edit import main
from imvideoedit.editing.edit_file import edit_file, is_made, read_facts
from imvideoedit.editing.edit_options import build_parser, parse_job
from imvideoedit.editing.jobs import Job, read_jobs
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.methods import adapter_file
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.reader import read_video, write_video
from tests.clips import make_clip
from tests.test_edit_inputs import CONFIG, Asking, noise, pipeline_of


@pytest.fixture(scope="module")
def asking(wan_folder) -> EditPipeline:
    return pipeline_of(Asking, wan_folder)


@pytest.fixture
def files(tmp_path) -> Path:
    """A clip of three frames, a first frame, a mask of its left half, a video, and masks that move."""
    write_video(tmp_path / "clip.mkv", noise(3), fps=3, codec="lossless")
    Image.fromarray(noise(1, seed=1)[0]).save(tmp_path / "first.png")
    Image.fromarray(left_half()).save(tmp_path / "mask.png")
    write_video(tmp_path / "depth.mkv", noise(3, seed=2), fps=3, codec="lossless")
    (tmp_path / "masks").mkdir()
    for n in range(3):
        Image.fromarray(np.roll(left_half(), 4 * n, axis=1)).save(tmp_path / "masks" / f"{n}.png")
    return tmp_path


def left_half() -> np.ndarray:
    mask = np.zeros((16, 32), np.uint8)
    mask[:, :16] = 255
    return mask


def job_of(folder: Path, output: str = "out.mkv", **given) -> Job:
    how = {name: given.pop(name) for name in ("start", "end", "settings") if name in given}
    return Job(folder / "clip.mkv", "snow", folder / output, codec="lossless", inputs=given, **how)


def parsed(*arguments: str) -> Job:
    return parse_job(build_parser("").parse_args(["clip.mkv", "snow", *arguments]))


def test_a_command_line_names_its_inputs(files, monkeypatch):
    monkeypatch.chdir(files)
    more = ("--input", "style=a=b", "--input", "depth=depth.mkv")
    job = parsed("--first-frame", "first.png", "--mask", "box:0,0,4,4", "--mask-feather", "2.5", *more)
    assert {name: given.text for name, given in job.given.items()} == {
        **{"first_frame": "first.png", "mask": "box:0,0,4,4", "style": "a=b", "depth": "depth.mkv"}
    }
    assert job.settings == {"mask_feather": 2.5} and parsed().given == {}
    assert parsed("--input", "mask=mask.png").facts() == parsed("--mask", "mask.png").facts()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mask", "box:1,2,3"), "box:x,y,w,h"),
        (("--mask", "box:1,2,3,0"), "is empty"),
        (("--mask", "a.png", "--input", "mask=b.png"), "mask is given twice"),
        (("--input", "style"), "--input NAME=FILE"),
        (("--input", "style="), "give a file or a text"),
        (("--input", "a b=c"), "'a b' is no input's name"),
        (("--mask-feather", "-1"), "--mask-feather is -1"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, words):
    with pytest.raises(UserError, match=words):
        parsed(*arguments)


def test_rows_give_inputs_by_columns_or_as_an_object(files):
    own = {"input": "clip.mkv", "instruction": "snow", "mask": "mask.png", "mask_feather": "0", "input.style": "red"}
    with (files / "jobs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, own)
        writer.writeheader()
        writer.writerow(own)
    like = Job(Path(), "", Path(), inputs={"first_frame": files / "first.png", "mask": "other.png"})
    (row,) = read_jobs(files / "jobs.csv", None, None, like)
    lines = {"input": "clip.mkv", "instruction": "snow", "mask_feather": 0}
    lines |= {"inputs": {"mask": "mask.png", "style": "red", "depth": None}}
    (files / "jobs.jsonl").write_text(json.dumps(lines))
    (line,) = read_jobs(files / "jobs.jsonl", None, None, like)
    assert row.job == line.job and row.job.settings == {"mask_feather": 0.0}
    assert row.job.given["mask"].path == files / "mask.png" and row.job.given["style"].text == "red"
    assert row.job.given["first_frame"].path == files / "first.png"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"mask": "box:1"}, "whole pixels"),
        ({"mask": "a.png", "inputs": {"mask": "b.png"}}, "given twice"),
        ({"inputs": "a.png"}, "give an object"),
        ({"input.style": 3}, "style is 3"),
        ({"mask_feather": -2}, "mask_feather is -2"),
        ({"masks": "a.png"}, "no field 'masks'"),
    ],
)
def test_a_wrong_row_says_so(files, row, words):
    (files / "jobs.jsonl").write_text(json.dumps({"input": "clip.mkv", "instruction": "snow"} | row))
    (entry,) = read_jobs(files / "jobs.jsonl", None, None, Job(Path(), "", Path()))
    assert entry.job is None and words in entry.problem


def test_files_give_what_arrays_give(asking, files):
    given = {"first_frame": files / "first.png", "mask": files / "masks", "depth": str(files / "depth.mkv")}
    edit_file(asking, job_of(files, **given, style="a red ball"))
    from_files = asking.method.got
    masks = np.stack([np.roll(left_half(), 4 * n, axis=1) for n in range(3)])
    arrays = {"first_frame": noise(1, seed=1)[0], "mask": masks, "depth": noise(3, seed=2), "style": "a red ball"}
    made = asking(noise(3), "snow", inputs=arrays).frames
    assert from_files.keys() == arrays.keys()
    assert all(torch.equal(from_files[name], value) for name, value in asking.method.got.items())
    assert np.array_equal(read_video(files / "out.mkv")[0], made)


def test_a_part_is_edited_with_its_part_of_a_mask_and_a_video(asking, files):
    given = {"first_frame": files / "first.png", "mask": files / "masks", "depth": files / "depth.mkv"}
    edit_file(asking, job_of(files, start=1 / 3, settings={"mask_feather": 0.0}, **given))
    masks = np.stack([np.roll(left_half(), 4 * n, axis=1) for n in (1, 2)])
    out = read_video(files / "out.mkv")[0]
    assert np.array_equal(out[masks == 0], noise(3)[1:][masks == 0]) and (out != noise(3)[1:]).any()
    arrays = {"first_frame": noise(1, seed=1)[0], "mask": masks, "depth": noise(3, seed=2)[1:]}
    assert np.array_equal(out, asking(noise(3)[1:], "snow", inputs=arrays, mask_feather=0.0).frames)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"first_frame": "none.png"}, "nothing at .*none.png; check the input first_frame"),
        ({"first_frame": "masks"}, "masks"),
        ({"mask": "out.mkv"}, "nothing at .*out.mkv"),
        ({"mask": "box:20,0,20,4"}, "'box:20,0,20,4' reaches out of the video, which is 32x16"),
        ({"mask": "long.mkv"}, "long.mkv has 4 frames, but .*clip.mkv has 3"),
        ({"depth": "long.mkv"}, "the depth .*long.mkv has 4 frames, but .*clip.mkv has 3"),
        ({"depth": "none.mkv"}, "no file none.mkv"),
        ({"first_frame": "tall.png"}, "the first_frame .*tall.png is 16x32, but the source is 32x16"),
        ({"first_frame": "clip.mkv"}, "clip.mkv as an image"),
        (
            {"reverence": "first.png"},
            "the adapter asking.* does not know the input reverence|method asking does not know",
        ),
        ({"mask": None}, "needs the input mask"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(asking, files, monkeypatch, given, words):
    monkeypatch.setattr(asking, "stream", None)
    write_video(files / "long.mkv", noise(4), fps=3, codec="lossless")
    Image.fromarray(noise(1, 32, 16)[0]).save(files / "tall.png")
    before = sorted(files.iterdir())
    named = {"first_frame": "first.png", "mask": "mask.png"} | given
    inputs = {name: files / text if (files / text).exists() else text for name, text in named.items() if text}
    with pytest.raises(UserError, match=words) as caught:
        edit_file(asking, job_of(files, **inputs))
    assert "\n" not in str(caught.value) and sorted(files.iterdir()) == before


def test_the_output_replaces_no_input(files):
    with pytest.raises(UserError, match=r"mask.png is the input mask"):
        job_of(files, "mask.png", mask=files / "mask.png").open_clip()


def test_an_edit_is_made_before_only_with_the_same_contents(asking, files):
    asking.contents = "this one"
    given = {"first_frame": files / "first.png", "mask": files / "mask.png"}
    job = job_of(files, **given, style="red")
    edit_file(asking, job)
    facts = read_facts(job.output)
    assert facts["inputs"].keys() == {"first_frame", "mask", "style"} and facts["inputs"]["style"] == "red"
    assert str(files) not in json.dumps(facts) and is_made(job, "this one")
    assert not is_made(job_of(files, **given, style="blue"), "this one")
    assert not is_made(job_of(files, **given), "this one")
    (files / "mask.png").rename(files / "renamed.png")
    assert is_made(job_of(files, **given | {"mask": files / "renamed.png"}, style="red"), "this one")
    Image.fromarray(255 - left_half()).save(files / "mask.png")
    assert not is_made(job, "this one")
    folder = {**given, "mask": files / "masks", "style": "red"}
    before = job_of(files, **folder).facts()
    Image.fromarray(left_half()).save(files / "masks" / "2.png")
    assert job_of(files, **folder).facts() != before


def test_the_command_gives_an_adapter_what_it_declares(asking, files, monkeypatch, capsys):
    monkeypatch.setitem(adapter_file.METHODS, "asking", Asking)
    path = files / "asking.safetensors"
    save_adapter(asking.method, path, AdapterHeader.describe(asking.method, asking.backbone, {"sampler": vars(CONFIG)}))
    command = [str(files / "clip.mkv"), "snow", "--adapter", str(path), "--device", "cpu", "--codec", "lossless"]
    command += ["--output", str(files / "out.mkv"), "--first-frame", str(files / "first.png")]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and not (files / "out.mkv").exists()
    assert (
        "error: the adapter asking.safetensors needs the input mask (mask), which is not given"
        in capsys.readouterr().err
    )
    main([*command, "--mask", "box:0,0,16,16", "--mask-feather", "0", "--input", "style=a red ball"])
    out = read_video(files / "out.mkv")[0]
    assert np.array_equal(out[:, :, 16:], noise(3)[:, :, 16:]) and (out[:, :, :16] != noise(3)[:, :, :16]).any()
    arrays = {"first_frame": noise(1, seed=1)[0], "mask": left_half(), "style": "a red ball"}
    assert np.array_equal(out, asking(noise(3), "snow", inputs=arrays, mask_feather=0.0).frames)


@pytest.mark.parametrize(("form", "side"), [("yuv420p", False), ("yuv444p10le", False), ("turned", True)])
def test_around_a_box_the_lossless_file_holds_a_camera_clips_pixels(wan_folder, tmp_path, form, side):
    """The default feather, over several windows; the written file's planes are read without any conversion."""
    coloured = noise(21, 48, 64)
    coloured[:, :, 32:] //= 3
    lossy = {"rotation": 90} if side else {"pix_fmt": form}
    make_clip(tmp_path / "clip.mp4", coloured, options={"crf": "25"}, **lossy)
    source = read_video(tmp_path / "clip.mp4")[0]
    height, width = (64, 48) if side else (48, 64)
    assert source.shape == (21, height, width, 3)
    inputs, settings = {"mask": "box:11,17,13,9"}, {"max_frames": 9, "overlap": 4}
    job = Job(tmp_path / "clip.mp4", "snow", tmp_path / "out.mkv", codec="lossless", inputs=inputs, settings=settings)
    edit_file(pipeline_of(PredictUpdate, wan_folder), job)
    with av.open(str(job.output)) as container:
        frames = [
            [np.frombuffer(p, np.uint8).reshape(height, p.line_size) for p in f.planes] for f in container.decode()
        ]
    found = np.stack([np.stack([red, green, blue], -1)[:, :width] for green, blue, red in frames])
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot(*(np.maximum(np.maximum(a - x, x - b), 0) for x, a, b in ((columns, 11, 23), (rows, 17, 25))))
    changed = (found != source).any(-1)
    assert not changed[:, away >= 8].any()
    assert changed[:, away == 0].mean() > 0.9 and changed[:, (away > 0) & (away < 4)].mean() > 0.5
