"""Pairs that others made: mapped, checked, described by a model, balanced, exported."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data_recipes.column_maps import FIELDS, PRESETS, read_map
from data_recipes.import_pairs import imported, main
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from imvideoedit.world.tasks import TASKS
from tests.processes import command_environment
from tests.processes import run as run_command
from tests.test_edit import assert_one_line
from tests.test_recipe_models import OVERRIDES, answered_once, requests, server  # noqa: F401

COUNT = 12


def picture(seed: int, size: tuple[int, int] = (90, 120)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((size[1], size[0]), Image.BICUBIC)


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A folder as of MagicBrush, with a few bad rows."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    rows = []
    for index in range(COUNT):
        source = picture(index)
        target = source.copy()
        target.paste(picture(100 + index, (45, 60)), (10, 10))
        for name, image in (("source", source), ("target", target)):
            image.save(folder / f"{name}{index}.png")
        row = {"source_img": f"source{index}.png", "target_img": f"target{index}.png"}
        rows.append(row | {"instruction": f"change the thing number {index}"})
    (folder / "torn.png").write_bytes((folder / "source0.png").read_bytes()[:30])
    rows.append(rows[0] | {"source_img": "torn.png"})
    rows.append(rows[1] | {"source_img": "../source1.png"})
    rows.append(rows[2] | {"instruction": ""})
    rows.append(rows[3])
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_rows_are_streamed_and_bad_ones_kept_with_their_reason(foreign, tmp_path, capsys):
    out = tmp_path / "out"
    main(["--from", str(foreign), "--preset", "magic_brush", "--out", str(out)])
    assert "+recipe=imported" in capsys.readouterr().out
    rows = list(imported(out).rows())
    assert [row["accepted"] for row in rows] == [True] * COUNT + [False] * 4
    reasons = " | ".join(row["reason"] for row in rows[COUNT:])
    for word in ("cannot read", "leads out", "instruction: none in line 15", "duplicate"):
        assert word in reasons
    assert (rows[0]["height"], rows[0]["width"]) == (90, 120)
    main(["--from", str(foreign), "--preset", "magic_brush", "--out", str(tmp_path / "few"), "--limit", "5"])
    assert imported(tmp_path / "few").manifest()["rows"] == 5


def test_parquet_with_embedded_images_streams_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    files = []
    for seed in (1, 2):
        file = io.BytesIO()
        picture(seed).save(file, "PNG")
        files.append({"bytes": file.getvalue(), "path": None})
    rows = {"src": files, "tar": files[::-1], "prompt": ["one", "two"], "kind": ["Style Transfer", "odd"]}
    features = {"src": datasets.Image(), "tar": datasets.Image()}
    table = datasets.Dataset.from_dict(rows).cast_column("src", features["src"]).cast_column("tar", features["tar"])
    (tmp_path / "data").mkdir()
    table.to_parquet(str(tmp_path / "data" / "train.parquet"))
    mapping = "source=src,target=tar,instruction=prompt,task=kind"
    main(["--from", str(tmp_path / "data"), "--map", mapping, "--out", str(tmp_path / "out")])
    read = list(imported(tmp_path / "out").rows())
    assert [row["source"] for row in read] == [file["bytes"] for file in files]
    assert [row["task"] for row in read] == ["style_transfer", ""]


def test_mistakes_cost_one_line(foreign, tmp_path):
    def run(*arguments) -> subprocess.CompletedProcess:
        return run_command("data_recipes.import_pairs", "--out", tmp_path / "out", *arguments, forked=False)

    assert_one_line(run("--from", str(foreign), "--map", "source=a,target=b,instruction=c"), "line 1", "a for source")
    with pytest.raises(UserError, match="presets are"):
        read_map(None, "nothing")
    with pytest.raises(UserError, match="source=…|FIELD=COLUMN"):
        read_map("picture=a", None)
    with pytest.raises(UserError, match="does not say which column holds target, instruction"):
        read_map("source=a", None)
    with pytest.raises(SystemExit):
        main(["--from", str(tmp_path / "none"), "--preset", "x2edit", "--out", str(tmp_path / "out")])


def test_presets_name_known_fields_and_tasks():
    for name, preset in yaml.safe_load(PRESETS.read_text()).items():
        mapped = read_map(None, name)
        assert set(mapped.columns) <= set(FIELDS) and set(mapped.tasks.values()) <= set(TASKS), preset
    assert read_map("source=other", "magic_brush").columns["source"] == ["other"]


@pytest.mark.slow
def test_a_model_describes_them_and_the_rest_of_the_recipe_is_the_same(foreign, tmp_path, server):  # noqa: F811
    url, log = server
    out = tmp_path / "out"
    main(["--from", str(foreign), "--preset", "magic_brush", "--out", str(out)])
    settings = {name: value for name, value in OVERRIDES.items() if name.split(".")[0] in ("+llm", "llm", "filter")}
    del settings["filter.crossed_share"]
    settings |= {"out": out, "llm.url": url, "pairs": COUNT, "plan.max_area": 9216, "filter.accept": 5}
    order = ["+recipe=imported", *(f"{name}={value}" for name, value in settings.items())]
    environment = command_environment() | {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": "any-key"}
    done = run_command("data_recipes.build", *order, env=environment, forked=False)
    assert done.returncode == 0, done.stderr
    answered_once(log)
    assert {line["schema"] for line in requests(log)} == {"Kind", "PromptPair", "Verdict"}
    prompts = list(shards_of(out, "prompts").rows())
    assert len(prompts) == COUNT + 4 and all(row["accepted"] or row["reason"] for row in prompts)
    records = open_records(out / "export")
    assert len(records) and all(records[i].task == "relighting" for i in range(len(records)))
    source, target = records[0].load()
    assert source.shape == target.shape and source.shape[0] * source.shape[1] <= 9216 and source.shape[0] % 16 == 0
