"""The clip recipe: two tracks from source clips to a folder that training reads, resumed, and imported pairs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanVACEPipeline, WanVACETransformer3DModel
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from data_recipes.build_clips import build_clips
from data_recipes.clip_models import ClipPainter, Depth, Masker, VacePainter
from data_recipes.clip_regions import control_of, region_of
from data_recipes.clip_rows import read_clip, read_clip_mask
from data_recipes.clip_texts import Proposal
from data_recipes.clip_vision import DepthMaps, GroundedMasks
from data_recipes.filtering import Judge, Judgement
from data_recipes.import_pairs import main as import_pairs
from data_recipes.models import Model
from data_recipes.rows import CRITERIA
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import CONF
from imvideoedit.data.records import open_records
from imvideoedit.video.reader import write_video

RED, BLUE = (220, 30, 30), (30, 30, 220)
SIZE = (32, 48)
CALLS: list[str] = []


def clip_of(frames: int = 9, seed: int = 0) -> np.ndarray:
    """A red square that moves over grey."""
    video = np.full((frames, *SIZE, 3), 120, np.uint8)
    for frame in range(frames):
        left = 4 + 2 * frame + seed
        video[frame, 8:20, left : left + 12] = RED
    return video


class Sees(Model):
    name = "sees"

    def identity(self) -> Any:
        return "sees"

    def ask(self, parts, schema, system=""):
        shown = parts[0]
        assert schema is Proposal and shown.shape == (SIZE[0], 3 * SIZE[1], 3)
        CALLS.append("ask")
        style = "style" in parts[1]
        told = "make it night" if style else "make the red square blue"
        return Proposal(object="red square", instruction=told, source_prompt="a red square", edited_prompt=told)


class RedMask(Masker):
    models = {"masks": "red"}

    def identity(self) -> Any:
        return "red"

    def masks(self, video_FHWC, words):
        assert words == "red square"
        red = (video_FHWC[..., 0] > 150) & (video_FHWC[..., 1] < 100)
        return red.astype(np.uint8) * 255 if red.any() else None


class Brightness(Depth):
    models = {"depth": "brightness"}

    def identity(self) -> Any:
        return "brightness"

    def depth(self, video_FHWC):
        return video_FHWC.max(-1)


class Fills(ClipPainter):
    """Blue where it may paint."""

    models = {"edited clips": "blue"}

    def identity(self) -> Any:
        return "fills"

    def paint(self, control_FHWC, region_FHW, prompt, seed):
        CALLS.append("paint")
        return np.where(region_FHW[..., None] > 127, np.array(BLUE, np.uint8), control_FHWC)


class LikesBlue(Judge):
    models = {"judge": "blue"}

    def identity(self) -> Any:
        return "likes blue"

    def judge(self, rows, images):
        CALLS.append("judge")
        (source, target) = images[0]
        assert source.shape == target.shape == (SIZE[0], 3 * SIZE[1], 3)
        score = 9.0 if rows[0]["kind"] != "remove" else 3.0
        return [Judgement(dict.fromkeys(CRITERIA, score), "seen")]


FAKES = {
    "verdicts.judge": "LikesBlue",
    "proposals.model": "Sees",
    "masks.masker": "RedMask",
    "edits.painter": "Fills",
    "edits.depth": "Brightness",
}


def run(out: Path, folder: Path | None = None, recipe: str = "ffp", **settings: Any) -> None:
    """The command, with models that need no network."""
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("build_clips", [f"+recipe={recipe}"])
    small = {"sources.folder": folder, "sources.frames": 9, "sources.max_area": SIZE[0] * SIZE[1]}
    given = small | {"sources.per_shard": 1, "edits.erosion": 1} if recipe == "ffp" else {}
    fakes = {key: {"_target_": f"{__name__}.{name}"} for key, name in FAKES.items() if key.split(".")[0] in config}
    for key, value in ({"out": str(out)} | given | fakes | settings).items():
        OmegaConf.update(config, key, str(value) if isinstance(value, Path) else value, merge=False)
    build_clips(config)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("data_recipes.clip_rows.COLOUR", {"codec": "lossless"})
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(2):
        write_video(clips / f"{number}.mp4", clip_of(seed=number), 8, codec="lossless")
    write_video(clips / "short.mp4", clip_of(3), 8)
    (clips / "notes.txt").write_text("no clip")
    CALLS.clear()
    return clips


def test_two_tracks_end_in_a_folder_that_training_reads(folder, tmp_path, capsys):
    out = tmp_path / "out"
    run(out, folder)
    assert CALLS.count("ask") == 8 and CALLS.count("paint") == 8 and CALLS.count("judge") == 8
    told = capsys.readouterr().out
    assert "sources: 2 of 3 rows accepted (rejected: unreadable 1)" in told
    assert "verdicts: 6 of 8 rows accepted (rejected: judge 2)" in told and "export: 6 pairs" in told
    rows = open_records(out / "export")
    kinds = {record.task for record in (rows[i] for i in range(len(rows)))}
    assert kinds == {"rigid_replacement", "local_attribute", "style_transfer"}
    for record in (rows[i] for i in range(len(rows))):
        source, target = record.load()
        assert source.shape == target.shape == (9, *SIZE, 3)
        first = record.read("first_frame")[0]
        assert np.array_equal(first, target[0])
        if record.task == "style_transfer":
            assert (target == BLUE).all(), "all of it is painted"
            assert "mask" not in record.media
        else:
            mask = read_clip_mask(out / "export", str(record.media["mask"].relative_to(out / "export")))
            assert np.array_equal(mask > 127, (source == RED).all(-1))
            region = region_of(mask, "swap", 1) > 127
            assert np.array_equal(target[~region], source[~region]) and (target[region] == BLUE).all()
            assert 0 < region.sum() < (mask > 127).sum(), "eroded"
        assert record.scores == dict.fromkeys(CRITERIA, 9.0)


def test_a_second_run_makes_nothing_anew_and_a_lost_shard_does_not_paint_again(folder, tmp_path):
    out = tmp_path / "out"
    run(out, folder)
    CALLS.clear()
    run(out, folder)
    assert not CALLS
    shards_of(out, "edits").path(0).unlink()
    run(out, folder)
    assert "paint" not in CALLS and "judge" not in CALLS, "its clips are there, and its rows are as they were"
    run(out, folder, **{"edits.erosion": 0})
    assert CALLS.count("paint") == 8 and "ask" not in CALLS


def test_regions_of_local_edits():
    mask = np.zeros((2, 8, 10), np.uint8)
    mask[0, 2:6, 3:7] = 255
    mask[0, 2, 3] = 0
    mask[1, 4, 4] = 255
    box = region_of(mask, "remove", 1)
    assert box[0, 2:6, 3:7].all() and box[0].sum() == 16 * 255 and box[1].sum() == 255
    eroded = region_of(mask, "swap", 1)
    assert (eroded[0] > 0).sum() == 4 - 1 and eroded[1, 4, 4] == 255, "a mask that would vanish stays"
    control = control_of(np.full((2, 8, 10, 3), 9, np.uint8), box)
    assert (control[box > 0] == 127).all() and (control[box == 0] == 9).all()


def test_a_vace_pipeline_paints(tmp_path, wan_folder):
    base = WanPipeline.from_pretrained(wan_folder)
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
        vace_layers=[0],
        vace_in_channels=2 * 4 + 64,
    )
    parts = {"tokenizer": base.tokenizer, "text_encoder": base.text_encoder, "vae": base.vae}
    WanVACEPipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer).save_pretrained(
        tmp_path / "vace"
    )
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "max_sequence_length": 12}
    painter = VacePainter(str(tmp_path / "vace"), call=call, dtype="float32", device="cpu")
    video = clip_of(5)
    region = region_of((video[..., 0] > 150).astype(np.uint8) * 255, "swap", 0)
    one, same, other = (painter.paint(control_of(video, region), region, "a blue ball", seed) for seed in (1, 1, 2))
    assert one.shape == video.shape and one.dtype == np.uint8
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    whole = painter.paint(control_of(video, region), np.full_like(region, 255), "a blue ball", 1)
    assert not np.array_equal(one, whole), "the region is used"
    with pytest.raises(UserError, match="check painter.call"):
        VacePainter(str(tmp_path / "vace"), call={"nonsense": 1}, dtype="float32", device="cpu").paint(
            video, region, "a", 1
        )


def test_imported_pairs_of_clips_are_judged_and_exported(tmp_path, capsys):
    CALLS.clear()
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    theirs.mkdir()
    for name, video in {"a": clip_of(), "b": clip_of(seed=3), "short": clip_of(5)}.items():
        write_video(theirs / f"{name}.mp4", video, 8, codec="lossless")
    plain = {"src_caption": "a red square", "tgt_caption": "a blue square", "instruction": "make it blue"}
    rows = [
        {"src_video": "a.mp4", "tgt_video": "b.mp4", "type": "swap", **plain},
        {"src_video": "a.mp4", "tgt_video": "b.mp4", "type": "swap", **plain},  # again
        {"src_video": "a.mp4", "tgt_video": "short.mp4", "type": "remove", **plain},
        {"src_video": "a.mp4", "tgt_video": "gone.mp4", "type": "style", **plain},
        {"src_video": "../a.mp4", "tgt_video": "b.mp4", "type": "style", **plain},
        {"src_video": "b.mp4", "tgt_video": "a.mp4", "type": "dance", **plain},
        {"src_video": "b.mp4", "tgt_video": "a.mp4", "type": "style", **plain, "instruction": ""},
    ]
    (theirs / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_pairs(["--from", str(theirs), "--preset", "ffp_300k", "--clips", "--out", str(out)])
    told = capsys.readouterr().out
    assert "imported 1 of 7 pairs" in told and f"build_clips +recipe=ffp_imported out={out} pairs=1" in told
    reasons = [row["reason"].split(":")[0] for row in shards_of(out, "edits").rows()]
    assert reasons == ["", "duplicate", "shapes", "clip", "clip", "task", "texts"]
    run(out, recipe="ffp_imported")
    assert CALLS == ["judge"]
    record = open_records(out / "export")[0]
    assert record.task == "rigid_replacement" and record.edited_prompt == "a blue square"
    source, target = record.load()
    assert np.array_equal(source, clip_of()) and np.array_equal(target, clip_of(seed=3))
    assert np.array_equal(read_clip(theirs, "a.mp4"), clip_of()), "theirs stays"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stage": "paint"}, "stage is 'paint'"),
        ({"sources.frames": 8}, "4k \\+ 1"),
        ({"proposals.kinds": ["dance"]}, "choose of swap"),
        ({"masks.least": 2}, "0 < least < most"),
        ({"stage": "edits"}, "no finished stage masks"),
        ({"pairs": 0}, "at least 1"),
        ({"verdicts.accept": 11}, "in \\[0, 10\\]"),
    ],
)
def test_wrong_settings_are_one_line(folder, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path / "out", folder, **settings)


def test_a_style_without_depth_ends_the_run(folder, tmp_path):
    with pytest.raises(UserError, match="needs edits.depth"):
        run(tmp_path / "out", folder, **{"edits.depth": None})


def test_models_that_cannot_be_loaded_are_one_line(tmp_path):
    video = clip_of(5)
    for make, words in (
        (lambda: GroundedMasks(detector=str(tmp_path), device="cpu").masks(video, "ball"), "check masker.detector"),
        (lambda: DepthMaps(model=str(tmp_path), device="cpu").depth(video), "check depth.model"),
        (
            lambda: VacePainter(str(tmp_path), device="cpu").paint(video, video[..., 0], "a", 0),
            "check painter.pipeline",
        ),
    ):
        with pytest.raises(UserError, match=words) as raised:
            make()
        assert "\n" not in str(raised.value)
