"""Edits by an edited first frame: I2VEdit's folders, similarities on vectors whose answer is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow, read_methods
from imvideoedit.evaluation.metrics.first_frame import NOT_MEASURED, FirstFrameScorer, similarity
from imvideoedit.evaluation.published.quoted import quoted
from imvideoedit.evaluation.suites.folders import read_benchmark
from imvideoedit.evaluation.weights.files import MARK
from imvideoedit.video.reader import write_video
from tests.edited_clips import moving


def item(folder: Path, name: str, *frames: str) -> Path:
    place = folder / name / "source_and_edits"
    place.mkdir(parents=True)
    write_video(place / "source.mp4", moving(3, 1), fps=8, codec="lossless")
    for frame in frames:
        Image.fromarray(moving(1, 0, seed=len(frame))[0]).save(place / frame)
    return place


def test_each_edited_first_frame_of_an_item_is_an_edit(tmp_path):
    place = item(tmp_path, "item1", "necklace.png", "red_hair.png")
    item(tmp_path, "item_sora", "edited-1.jpg")
    (tmp_path / "item1" / "config.yaml").write_text("video_path: elsewhere\n")
    rows = read_benchmark("i2vedit", tmp_path)
    assert [row.id for row in rows] == ["item1_necklace", "item1_red_hair", "item_sora_edited-1"]
    assert [row.instruction for row in rows] == ["necklace", "red hair", "edited 1"]
    assert rows[1].source == place / "source.mp4" and rows[1].inputs == {"first_frame": place / "red_hair.png"}
    write_video(place / "other.mp4", moving(3, 1), fps=8)
    assert len(read_benchmark("i2vedit", tmp_path)) == 3, "source.mp4 is the source"


def test_an_item_that_lacks_something_is_named(tmp_path):
    with pytest.raises(UserError, match="no item with source_and_edits.*huggingface.co/datasets/Vicky0522"):
        read_benchmark("i2vedit", tmp_path)
    place = item(tmp_path, "item1")
    with pytest.raises(UserError, match="item1.*no edited first frame beside source.mp4"):
        read_benchmark("i2vedit", tmp_path)
    (place / "source.mp4").rename(place / "a.mp4")
    write_video(place / "b.mp4", moving(1, 0), fps=8)
    with pytest.raises(UserError, match="no single source video .it has a.mp4, b.mp4"):
        read_benchmark("i2vedit", tmp_path)


def test_similarity_is_the_mean_cosine_frame_by_frame_or_with_the_one():
    right, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    slanted = torch.tensor([0.6, 0.8])
    assert similarity(torch.stack([right, up]), torch.stack([right, right])) == pytest.approx(0.5)
    assert similarity(torch.stack([right, slanted]), torch.stack([right])) == pytest.approx(0.8)
    assert similarity(torch.stack([right, up, up]), torch.stack([right, up])) == pytest.approx(1), "what is longer"


class Seen(FirstFrameScorer):
    """A network that sees the mean colour: unit vectors of three channels."""

    def network(self, name):
        class Colours:
            @staticmethod
            def images(batch):
                return torch.nn.functional.normalize(batch.mean((2, 3)), dim=1)

        return Colours()


@pytest.fixture
def row(tmp_path):
    (tmp_path / MARK).write_text("")
    red, green = np.zeros((2, 4, 16, 16, 3), np.uint8)
    red[..., 0], green[..., 1] = 200, 200
    half = np.concatenate([red[:2], green[:2]])
    for name, frames in (("source", red), ("edited", half)):
        write_video(tmp_path / f"{name}.mp4", frames, fps=8, codec="lossless")
    Image.fromarray(green[0]).save(tmp_path / "first.png")
    first = {"first_frame": tmp_path / "first.png"}
    return EditRow("one", tmp_path / "source.mp4", "x", tmp_path / "edited.mp4", inputs=first)


def test_two_of_four_frames_like_the_first_frame_and_two_like_the_input(row, tmp_path):
    scorer = Seen(weights=tmp_path)
    found = scorer.score(row)
    assert found["clip_first_frame"] == pytest.approx(0.5, abs=0.02)
    assert found["input_similarity"] == pytest.approx(0.5, abs=0.02)
    assert "deqa" not in found and NOT_MEASURED in scorer.warnings()
    assert math.isnan(scorer.score(replace(row, inputs={}))["clip_first_frame"])


def test_the_papers_figures_are_quoted_for_this_scorer_alone():
    tables = {table.key: table for table in quoted(["first_frame"])}
    assert set(tables) == {"first_frame", "first_frame_users"}
    ours = tables["first_frame"].rows[-1]
    assert ours == {"method": "LoRA-Edit", "clip_first_frame": 0.9172, "deqa": 3.8013, "input_similarity": 0.7608}
    assert "first_frame" not in {table.key for table in quoted(["open"])}


def test_first_frames_stay_with_the_edits_of_a_benchmark(tmp_path):
    from imvideoedit.evaluation.edits.manifest import write_manifest
    from imvideoedit.evaluation.suites.benchmark import keep_first_frame

    item(tmp_path / "set", "item1", "red_hair.png")
    (made,) = read_benchmark("i2vedit", tmp_path / "set")
    out = tmp_path / "out" / "edits"
    out.mkdir(parents=True)
    write_video(out / "item1_red_hair.mp4", moving(3, 1), fps=8)
    kept = keep_first_frame(made, out)
    row = replace(made, edited=out / "item1_red_hair.mp4", method="ours", inputs=kept)
    write_manifest([row], out / "manifest.jsonl")
    (read,) = read_methods(out, ())
    given = read.inputs["first_frame"]
    assert isinstance(given, Path) and given.read_bytes() == made.inputs["first_frame"].read_bytes()
