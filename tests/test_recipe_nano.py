"""The nano recipe through all five stages, and what every recipe shares."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_recipes.drafting import NearDuplicates
from data_recipes.filtering import Filter
from data_recipes.nano import NanoJudge, NanoPainter, NanoWriter
from data_recipes.plan import Plan, balance
from data_recipes.rows import CRITERIA
from data_recipes.rules import PixelRules, TextRules, pixel_measures
from data_recipes.stages import shards_of
from data_recipes.synthesis import Synthesis, encode
from data_recipes.vocabulary import read_vocabulary
from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from imvideoedit.world.grammar import apply_instruction
from imvideoedit.world.tasks import TASKS
from tests.processes import run
from tests.recipes import build, content

PAIRS = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a finished nano recipe."""
    out = tmp_path_factory.mktemp("recipe") / "nano"
    build(out, pairs=PAIRS)
    return out


def test_it_makes_as_many_pairs_as_asked_for_and_they_are_right(made):
    files = sorted((made / "export" / "data").glob("*.parquet"))
    table = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert len(table) == PAIRS and len({row["id"] for row in table}) == PAIRS
    assert {row["task"] for row in table} == set(TASKS)
    for row in table:
        assert apply_instruction(row["instruction"], row["source_prompt"]) == row["edited_prompt"]
        assert all(row["scores"][name] == 10 for name in CRITERIA)


def test_scenes_are_never_in_both_splits_and_training_opens_the_train_split(made):
    scenes = {}
    for split in ("train", "validation"):
        files = sorted((made / "export" / "data").glob(f"{split}-*.parquet"))
        scenes[split] = {row["scene"] for path in files for row in pq.read_table(path).to_pylist()}
    assert scenes["train"] and scenes["validation"] and not scenes["train"] & scenes["validation"]
    records = open_records(made / "export")
    counted = json.loads((made / "export" / "manifest.json").read_text())["splits"]
    assert len(records) == counted["train"]
    source, target = records[0].load()
    assert source.shape == target.shape == (64, 64, 3) and (source != target).any()


def test_the_card_tells_what_is_in_it(made):
    card = (made / "export" / "README.md").read_text()
    assert "license: apache-2.0" in card and "nano renderer" in card and "data/validation-*.parquet" in card
    named = [line.split("](")[1].split(")")[0] for line in card.splitlines() if "](plots/" in line]
    assert {"plots/tasks.png", "plots/scenes.png", "plots/scores.png", "plots/words.png"} <= set(named)
    assert len(named) > len(TASKS) and all((made / "export" / name).stat().st_size > 200 for name in named)


def test_again_makes_nothing_and_a_lost_shard_alone_is_made_again(made, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(made, out)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    build(out, pairs=PAIRS)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    before = content(out)
    (out / "filter" / "part-00001.parquet").unlink()
    damaged = out / "synthesize" / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    build(out, pairs=PAIRS)
    remade = {f"{path.parent.name}/{path.stem}" for path, at in files.items() if path.stat().st_mtime_ns != at}
    assert remade == {"synthesize/part-00000", "filter/part-00001"}
    assert content(out) == before


def test_more_pairs_leave_those_that_are_there(made, tmp_path):
    out = tmp_path / "more"
    shutil.copytree(made, out)
    first = (out / "synthesize" / "part-00000.parquet").stat().st_mtime_ns
    build(out, pairs=PAIRS + 10)
    assert (out / "synthesize" / "part-00000.parquet").stat().st_mtime_ns == first
    assert json.loads((out / "export" / "manifest.json").read_text())["pairs"] == PAIRS + 10


def test_too_few_accepted_pairs_make_it_go_on(tmp_path):
    overrides = ["expected_yield=1.0", "filter.pixels.bounds.default.changed=[0.1,1.0]"]
    build(tmp_path, *overrides, pairs=20)
    manifest = shards_of(tmp_path, "filter").manifest()
    assert 20 <= manifest["accepted"] < manifest["rows"] and manifest["rejected"]
    assert json.loads((tmp_path / "export" / "manifest.json").read_text())["pairs"] == 20


def test_a_stage_needs_the_one_before(tmp_path):
    with pytest.raises(UserError, match="stage=synthesize"):
        build(tmp_path, pairs=3, stage="filter")
    build(tmp_path, pairs=3, stage="prompts")
    assert not (tmp_path / "synthesize").exists()
    build(tmp_path, pairs=3, stage="synthesize")
    assert shards_of(tmp_path, "synthesize").manifest()["accepted"] > 0


def test_the_nano_judge_tells_a_wrong_answer_from_the_right_one():
    plan = Plan(0, 1, 10, 4096, 16)
    rows = NanoWriter().write(0, plan.scenes(0))
    pairs = NanoPainter().paint(rows, [0] * len(rows))
    right = NanoJudge().judge(rows, pairs)
    assert all(min(judgement.scores.values()) == 10 for judgement in right)
    unedited = NanoJudge().judge(rows, [(source, source) for source, _ in pairs])
    assert all(judgement.scores["faithfulness"] < 6 for judgement in unedited)
    others = NanoJudge().judge(rows, [*pairs[1:], pairs[0]])
    assert all(min(judgement.scores.values()) < 6 for judgement in others)
    lied = [row | {"edited_prompt": row["source_prompt"]} for row in rows]
    assert all(judgement.scores["faithfulness"] == 0 for judgement in NanoJudge().judge(lied, pairs))


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_pictures_that_cannot_be_used_reject_their_own_row_alone():
    rows = NanoWriter().write(0, Plan(0, 1, 5, 4096, 16).scenes(0))
    pairs = Synthesis(NanoPainter()).make(0, rows)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")
    pairs[0]["source"] = b"\x89PNG\r\n\x1a\n" + bomb
    pairs[1]["target"] = pairs[1]["target"][:-40]
    pairs[2]["target"] = encode(np.zeros((64, 80, 3), np.uint8), "PNG")
    pairs[3]["target"] = pairs[3]["source"]
    verdicts = Filter(TextRules(), PixelRules({}), NanoJudge()).make(0, pairs)
    assert [verdict["accepted"] for verdict in verdicts] == [False] * 4 + [True]
    assert [verdict["id"] for verdict in verdicts] == [pair["id"] for pair in pairs]
    words = ["claims more than", "target", "sizes differ: 64x64 and 80x64", "identical images"]
    for verdict, word in zip(verdicts, words, strict=False):
        assert word in verdict["reason"], verdict["reason"]
    assert json.loads(verdicts[4]["scores"]).keys() == set(CRITERIA)


@pytest.mark.slow
def test_training_takes_what_was_exported(made, tmp_path):
    order = ["data=pairs", f"data.path={made / 'export'}", f"run_dir={tmp_path / 'run'}"]
    order += ["data.batch_size=4", "data.num_workers=0", "trainer.max_steps=2"]
    done = run("imvideoedit.train", *order, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


@given(st.integers(0, 5), st.integers(1, 10), st.integers(0, 200))
def test_of_ten_scenes_each_task_comes_equally_often(seed, per_scene, block):
    plan = Plan(seed, per_scene, 1, 4096, 16)
    scenes = [plan.scene(10 * block + place) for place in range(10)]
    assert all(len(set(scene.tasks)) == per_scene for scene in scenes)
    assert sorted(task for scene in scenes for task in scene.tasks) == sorted(per_scene * list(TASKS))


@given(st.lists(st.sampled_from(TASKS[:4]), max_size=60), st.integers(0, 60))
def test_balance_keeps_as_many_as_it_can_and_tasks_as_equal_as_can_be(tasks, wanted):
    kept = balance(tasks, wanted)
    assert len(kept) == min(wanted, len(tasks)) and kept == sorted(set(kept))
    counts = {task: sum(tasks[i] == task for i in kept) for task in set(tasks)}
    for task, count in counts.items():
        if count < tasks.count(task):  # one that lost rows is not behind by more than one
            assert count >= max(counts.values()) - 1


def test_environments_and_conditions_are_many_and_each_comes_once_a_round():
    vocabulary = read_vocabulary()
    assert len(vocabulary.environments) >= 200 and sum(map(len, vocabulary.conditions.values())) >= 200
    count = len(vocabulary.environments)
    drawn = [vocabulary.compose(3, index, (2, 4)) for index in range(count)]
    assert {composition.environment for composition in drawn} == {entry for _, entry in vocabulary.environments}
    for composition in drawn:
        assert 2 <= len(composition.conditions) <= 4
        assert set(composition.conditions) <= set(vocabulary.groups[composition.group]["conditions"])


def test_near_duplicates_are_found_within_a_task_alone():
    duplicates = NearDuplicates(0.8)
    words = " ".join(f"word{i}" for i in range(60))
    row = {"id": "a", "task": "relighting", "source_prompt": words, "instruction": "make it night"}
    assert duplicates.earlier(row) is None
    near = words.replace("word59", "other")
    assert duplicates.earlier(row | {"id": "b", "source_prompt": near}) == "a"
    assert duplicates.earlier(row | {"id": "c", "task": "style_transfer"}) is None
    assert duplicates.earlier(row | {"id": "d", "source_prompt": " ".join(reversed(words.split()))}) is None


GOOD = {
    "task": "color_texture",
    "instruction": "make the box blue",
    "source_prompt": "A red box stands on a wooden table in soft light.",
    "edited_prompt": "A blue box stands on a wooden table in soft light.",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"task": "magic"}, "task"),
        ({"instruction": ""}, "instruction length"),
        ({"instruction": "very " * 41}, "instruction length"),
        ({"edited_prompt": "A blue box."}, "edited_prompt length"),
        ({"edited_prompt": GOOD["source_prompt"].upper()}, "is the source prompt"),
        ({"edited_prompt": "Make the red box that stands on a wooden table blue."}, "command"),
        ({"edited_prompt": "A blue box stands on a wooden table instead of a red one."}, "mentions the edit"),
        ({"edited_prompt": "Blue whales swim through murky water far below."}, "full scene"),
    ],
)
def test_texts_that_cannot_be_right(changes, reason):
    problem = TextRules().problem(GOOD | changes)
    assert problem is None if reason is None else reason in problem


def test_pixels_that_cannot_be_right():
    rng = np.random.default_rng(0)
    smooth = np.tile(np.linspace(0, 255, 96, dtype=np.uint8)[None, :, None], (64, 1, 3))
    edited = smooth.copy()
    edited[:32, :48] = 255 - edited[:32, :48]
    rules = PixelRules({"default": {"ssim": [0.1, 0.99], "changed": [0.01, 0.9]}, "relighting": {"changed": [0.5, 1]}})
    assert rules.problem("color_texture", pixel_measures(smooth, edited)) is None
    assert rules.problem("color_texture", pixel_measures(smooth, smooth)) == "identical images"
    assert "changed of relighting" in rules.problem("relighting", pixel_measures(smooth, edited))
    noise = rng.integers(0, 256, smooth.shape, dtype=np.uint8)
    assert "ssim" in rules.problem("color_texture", pixel_measures(smooth, noise))
    same = pixel_measures(smooth, smooth)
    assert same["ssim"] == 1 and same["changed"] == same["hash"] == 0
    assert abs(pixel_measures(smooth, edited)["changed"] - 0.25) < 0.03
    with pytest.raises(UserError, match="relighting.ssim"):
        PixelRules({"relighting": {"ssim": [1, 0]}})
    with pytest.raises(UserError, match="magic"):
        PixelRules({"magic": {}})
