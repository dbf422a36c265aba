"""Composed pairs of clips, by exact alpha; the judge's three stages; what is kept of OpenVE-3M."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from data_recipes.build_clips import build_clips
from data_recipes.clip_export import ClipExport
from data_recipes.clip_models import Masker
from data_recipes.clip_rows import clip_row, read_clip
from data_recipes.composite_texts import Texts
from data_recipes.composites import Composites, composed
from data_recipes.import_pairs import main as import_pairs
from data_recipes.models import Model
from data_recipes.staged_judging import StagedJudge, StagedVerdict, still_share
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import CONF
from imvideoedit.data.records import open_records
from imvideoedit.video.reader import write_video

SIZE, FRAMES = (32, 48), 9
RED = (220, 30, 30)
ASKED: list[Any] = []


class Writes(Model):
    name = "writes"

    def identity(self) -> Any:
        return "writes"

    def ask(self, parts, schema, system=""):
        assert schema is Texts and parts[1].shape == parts[3].shape == (SIZE[0], 3 * SIZE[1], 3)
        ASKED.append(parts[-1])
        return Texts(instruction=parts[-1].lower(), source_prompt="before it", edited_prompt="after it")


class Scores(Model):
    """By what it is asked."""

    name = "scores"
    known = {"removed": (9.2, []), "added": (8.0, []), "replaced": (9.0, ["physical"])}

    def identity(self) -> Any:
        return "scores"

    def ask(self, parts, schema, system=""):
        assert schema is StagedVerdict and "hard rejection" in system.lower()
        word = next(word for word in self.known if word in parts[4])
        ASKED.append(word)
        score, failures = self.known[word]
        return StagedVerdict(reasons="seen", failures=failures, score=score)


class RedMask(Masker):
    models = {"masks": "red"}

    def identity(self) -> Any:
        return "red"

    def masks(self, video_FHWC, words):
        assert words == "person"
        red = (video_FHWC[..., 0] > 150) & (video_FHWC[..., 1] < 100)
        return red.astype(np.uint8) * 255 if red.any() else None


def moving(seed: int) -> np.ndarray:
    """A background whose every frame is its own."""
    noise = np.random.default_rng(seed).integers(0, 120, (FRAMES, *SIZE, 3), np.uint8)
    return noise + (10 * np.arange(FRAMES, dtype=np.uint8))[:, None, None, None]


def stamp() -> np.ndarray:
    """A red square, half transparent at its right."""
    rgba = np.zeros((*SIZE, 4), np.uint8)
    rgba[8:20, 10:20] = (*RED, 255)
    rgba[8:20, 20:24] = (*RED, 128)
    return rgba


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr("data_recipes.clip_rows.COLOUR", {"codec": "lossless"})
    fronts, scenes = tmp_path / "fronts", tmp_path / "scenes"
    fronts.mkdir()
    scenes.mkdir()
    Image.fromarray(stamp()).save(fronts / "still.png")
    for seed in range(2):
        write_video(scenes / f"{seed}.mp4", moving(seed), 8, codec="lossless")
    ASKED.clear()
    return fronts, scenes


def run(out: Path, folders, recipe="mive_composites", **settings: Any) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("build_clips", [f"+recipe={recipe}"])
    given: dict[str, Any] = {"out": str(out), "verdicts.judge.model": {"_target_": f"{__name__}.Scores"}}
    if folders is not None:
        fronts, scenes = folders
        given |= {"composites.foregrounds": str(fronts), "composites.backgrounds": str(scenes)}
        given |= {"composites.frames": FRAMES, "composites.max_area": SIZE[0] * SIZE[1]}
        given |= {"edits.model": {"_target_": f"{__name__}.Writes"}}
    for key, value in (given | settings).items():
        OmegaConf.update(config, key, value, merge=False)
    build_clips(config)


def test_alpha_mixes_and_a_still_stands_in_every_frame():
    behind = moving(0)
    rgba = stamp()
    made = composed(rgba[None, ..., :3], rgba[None, ..., 3], behind)
    assert (made[:, 8:20, 10:20] == RED).all() and np.array_equal(made[:, :8], behind[:, :8])
    half = (128 * np.array(RED, float) + 127.0 * behind[:, 8:20, 20:24]) / 255
    assert np.abs(made[:, 8:20, 20:24] - half).max() <= 0.5


def test_a_foreground_over_two_backgrounds_gives_three_edits_with_exact_answers(folders, tmp_path, capsys):
    out = tmp_path / "out"
    run(out, folders, **{"verdicts.accept": 5.0})
    assert "edits: 3 of 3 rows accepted" in capsys.readouterr().out
    rows = {row["kind"]: row for row in shards_of(out, "edits").rows()}
    assert {kind: row["task"] for kind, row in rows.items()} == {
        "delete": "object_removal",
        "add": "object_addition",
        "background": "background_replacement",
    }
    assert len({row["scene"] for row in rows.values()}) == 1
    clips = {(kind, side): read_clip(out, row[side]) for kind, row in rows.items() for side in ("source", "target")}
    first, second = clips["delete", "target"], None
    for seed in range(2):
        if np.array_equal(first, moving(seed)):
            second = moving(1 - seed)
    rgba = stamp()
    over = [composed(rgba[None, ..., :3], rgba[None, ..., 3], behind) for behind in (first, second)]
    assert np.array_equal(clips["delete", "source"], over[0])
    assert np.array_equal(clips["add", "source"], first) and np.array_equal(clips["add", "target"], over[0])
    assert np.array_equal(clips["background", "source"], over[0])
    assert np.array_equal(clips["background", "target"], over[1])
    verdicts = {row["kind"]: row for row in shards_of(out, "verdicts").rows()}
    assert verdicts["background"]["reason"] == "hard rejection: physical"
    records = open_records(out / "export")
    assert len(records) == 2 and {records[n].scores["overall"] for n in range(2)} == {9.2, 8.0}


def test_the_band_of_flaws_is_rejected_and_nothing_is_asked_twice(folders, tmp_path):
    out = tmp_path / "out"
    run(out, folders)
    reasons = {row["kind"]: row["reason"] for row in shards_of(out, "verdicts").rows()}
    assert reasons == {
        "delete": "",
        "add": "judge: overall 8",
        "background": "hard rejection: physical",
    }
    assert len(ASKED) == 6
    run(out, folders)
    assert len(ASKED) == 6


def test_a_clip_that_hardly_moves_is_rejected_without_a_question(folders, tmp_path):
    still = np.repeat(moving(3)[:1], FRAMES, 0)
    assert still_share(still) == 1 and still_share(moving(3)) == 0
    still[FRAMES // 2 + 1 :] = moving(4)[FRAMES // 2 + 1 :]
    assert still_share(still) == 0.5
    for seed in range(2):
        write_video(folders[1] / f"{seed}.mp4", np.repeat(moving(seed)[:1], FRAMES, 0), 8, codec="lossless")
    with pytest.raises(UserError, match="no pair of .* was accepted"):
        run(tmp_path / "out", folders)
    reasons = {row["reason"] for row in shards_of(tmp_path / "out", "verdicts").rows()}
    assert reasons == {"hard rejection: still, 100% of the frames"}
    assert not set(ASKED) & set(Scores.known)


def test_foregrounds_are_stills_folders_of_frames_or_videos_with_a_masker(folders, tmp_path):
    fronts, scenes = folders
    (fronts / "frames").mkdir()
    for number in range(FRAMES):
        Image.fromarray(np.roll(stamp(), number, 1)).save(fronts / f"frames/{number:02d}.png")
    video = np.full((FRAMES, *SIZE, 3), 100, np.uint8)
    video[:, 8:20, 10:20] = RED
    write_video(fronts / "film.mp4", video, 8, codec="lossless")
    with pytest.raises(UserError, match="film.mp4 is a video, without transparency; give composites.masker"):
        run(tmp_path / "none", folders)
    (tmp_path / "out").mkdir()
    stage = Composites(tmp_path / "out", fronts, scenes, FRAMES, SIZE[0] * SIZE[1], masker=RedMask())
    rows = [row for row in stage.make(0) if row["kind"] == "add"]
    assert len(rows) == 3 and all(row["accepted"] for row in rows)
    film, frames, _ = (read_clip(tmp_path / "out", row["target"]) for row in rows)
    assert (film[:, 8:20, 10:20] == RED).all() and (film[:, :8] != RED).any()
    assert all((frames[n, 8:20, 10 + n : 20 + n] == RED).all() for n in range(FRAMES))
    Image.fromarray(stamp()[..., :3]).save(fronts / "opaque.png")
    reasons = [row["reason"] for row in stage.make(0) if not row["accepted"]]
    assert len(reasons) == 3 and all("opaque.png has no transparency" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"composites.frames": 8}, "4k \\+ 1"),
        ({"composites.draws": 0}, "at least 1"),
        ({"most_of_a_kind": 0}, "most_of_a_kind 0; ask for at least 1"),
        ({"verdicts.accept": 11}, "in \\[0, 10\\]"),
    ],
)
def test_wrong_settings_are_one_line(folders, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path / "out", folders, **settings)


def test_one_background_is_not_enough(folders, tmp_path):
    (folders[1] / "1.mp4").unlink()
    with pytest.raises(UserError, match="holds 1 videos; two backgrounds are the least"):
        run(tmp_path / "out", folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no foreground"):
        Composites(tmp_path, tmp_path / "empty", folders[1])


def test_of_each_kind_the_best_are_kept_in_their_order():
    rows = [
        clip_row(kind=kind, id=str(n), scores=json.dumps({"overall": score}))
        for n, (kind, score) in enumerate([("a", 9.4), ("a", 9.9), ("b", 9.5), ("a", 9.6), ("b", 9.5)])
    ]
    assert [row["id"] for row in ClipExport(9, 2).of_kinds(rows)] == ["1", "2", "3", "4"]
    assert ClipExport(9).of_kinds(rows) == rows


def test_of_openve_what_scores_above_the_bound_is_kept(folders, tmp_path, capsys):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    theirs.mkdir()
    for seed in range(2):
        write_video(theirs / f"{seed}.mp4", moving(seed), 8, codec="lossless")
    plain = {"src_caption": "before", "tgt_caption": "after", "src_video": "0.mp4", "tgt_video": "1.mp4"}
    rows = [
        {**plain, "edit_type": "subtitle", "instruction": "it was removed"},
        {**plain, "edit_type": "local_add", "instruction": "it was added"},
    ]
    (theirs / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_pairs(["--from", str(theirs), "--preset", "openve_3m", "--clips", "--out", str(out)])
    assert "imported 2 of 2 pairs" in capsys.readouterr().out
    with pytest.raises(UserError, match="no pair of .* was accepted"):
        run(out, None, "mive_openve")
    assert [row["reason"] for row in shards_of(out, "verdicts").rows()] == ["judge: overall 9.2", "judge: overall 8"]
    run(out, None, "mive_openve", **{"verdicts.accept": 9.2})
    assert len(open_records(out / "export")) == 1


def test_the_judge_says_what_its_questions_cost():
    judge = StagedJudge(Scores())
    assert "about 10 questions" in judge.estimate(10) and judge.models == {"judge": "scores"}
