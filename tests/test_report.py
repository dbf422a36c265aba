"""The report says what the rows say: means, groups, paired differences; and its page needs nothing but itself."""

import base64
import csv
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.nano.report import write_report
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.world.tasks import TASKS
from tests.processes import run

CHECKOUT = Path(__file__).parents[1]
VIDEOS = 4  # of each task


def scored_rows(editor, score, frames=(5, 9), seed=0, lost=0):
    """Rows whose ``overall`` has the mean ``score`` for each task and length, and ``lost`` videos more that got 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in frames:
        for place, task in enumerate(TASKS):
            offsets = rng.normal(0, 2, VIDEOS)
            for number, overall in enumerate([*(score + offsets - offsets.mean()), *[0.0] * lost]):
                parts = {part: weight * score / 100 for part, weight in WEIGHTS.items()}
                psnr = {"changed_psnr": score / 2, "kept_psnr": 30.0, "frame_psnr": 25.0}
                by_frame = [score / 2 - frame / 10 for frame in range(length)]
                where = {"editor": editor, "task": task, "video": place * (VIDEOS + lost) + number, "frames": length}
                rows.append({**where, "overall": overall, **parts, **psnr, "psnr_by_frame": by_frame})
    return rows


def write_scores(folder, score, **how):
    rows = scored_rows("adapter", score, **how)
    rows += scored_rows("copy", 20, seed=9) + scored_rows("ceiling", 90, seed=9)
    (folder / "strips").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "videos.parquet")
    for task in TASKS[:2]:
        Image.fromarray(np.full((8, 24, 3), int(score), np.uint8)).save(folder / "strips" / f"{task}.png")


def start_run(folder, job, *overrides):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(["+experiment=ablation", *overrides]))
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"num": job}}}))


def write_run(folder, job, score, *overrides, **how):
    start_run(folder, job, *overrides)
    write_scores(folder / "scores", score, **how)
    (folder / "csv").mkdir()
    (folder / "csv/metrics.csv").write_text("step,train/loss,validation/loss\n9,1.0,\n50,,0.5\n100,,0.4\n")
    header = {"method": "predict_update", "config": {}, "training": {"steps": 100}}
    header["backbone"] = {"name": "nano", "parameter_hash": "0123456789abcdef"}
    entries = {**{key: repr(value).replace("'", '"') for key, value in header.items()}, "format_version": "1"}
    save_file({"a": torch.zeros(30, 40), "b": torch.zeros(34)}, folder / "adapter.safetensors", entries)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three methods, named so that the alphabet is not their order: one 5 points above the first, one just as good."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed in range(3):
        for number, (method, score) in enumerate({"second<b>": 40, "first": 45, "alike": 40}.items()):
            place, job = folder / f"method={method},seed={seed}", 3 * seed + number
            write_run(place, job, score + seed - 1, f"seed={seed}", f"method={method}", seed=10 * job)
    start_run(folder / "method=alike,seed=3", 9, "seed=3", "method=alike")
    return folder


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory):
    """The folder that the sweep's report went to."""
    return write_report(sweep, tmp_path_factory.mktemp("out") / "report").parent


@pytest.fixture(scope="module")
def page(written):
    return (written / "report.html").read_text()


@pytest.fixture(scope="module")
def table(written):
    return list(csv.DictReader((written / "table.csv").open()))


def _all_videos(table):
    return {row["variant"]: row for row in table if not row["task"] and not row["frames"]}


def test_runs_are_grouped_over_seeds_in_the_order_of_the_sweep(table):
    rows = _all_videos(table)
    assert list(rows) == ["method=second<b>", "method=first", "method=alike", "copy", "ceiling"]
    assert [row["seeds"] for row in rows.values()] == ["3", "3", "3", "", ""]
    assert {row["videos"] for row in rows.values()} == {str(VIDEOS * len(TASKS))}
    assert rows["method=first"]["parameters"] == "1234" and rows["method=first"]["steps"] == "100"


def test_means_are_those_of_the_rows_overall_by_task_and_by_length(table):
    means = {"method=second<b>": 40, "method=first": 45, "method=alike": 40, "copy": 20, "ceiling": 90}
    for row in table:
        mean = means[row["variant"]]
        assert float(row["overall"]) == pytest.approx(mean, abs=1e-3)
        assert float(row["changed_psnr"]) == pytest.approx(mean / 2, abs=1e-3)
        assert float(row["temporal"]) == pytest.approx(0.3 * mean, abs=1e-3)
        assert float(row["low"]) < mean < float(row["high"])
    places = [(row["task"], row["frames"]) for row in table if row["variant"] == "copy"]
    assert places == [("", ""), *((task, "") for task in TASKS), ("", "5"), ("", "9")]


def test_the_paired_difference_tells_better_from_alike(table):
    rows = _all_videos(table)
    assert not rows["method=second<b>"]["verdict"] and not rows["copy"]["verdict"]
    better, alike = rows["method=first"], rows["method=alike"]
    assert float(better["difference"]) == pytest.approx(5, abs=1e-3)
    assert 4 < float(better["difference_low"]) < float(better["difference_high"]) < 6
    assert better["verdict"] == "interval excludes zero: higher"
    assert float(alike["difference_low"]) < 0 < float(alike["difference_high"])
    assert alike["verdict"] == "interval includes zero"


def test_pairing_is_by_seed_and_by_the_video_of_a_task(tmp_path):
    """Seeds differ by more than the variants, and the second variant's evaluation has more videos of each task."""
    for job, (seed, shift) in enumerate({"7": 0, "8": 30}.items()):
        write_run(tmp_path / f"a{seed}", job, 30 + shift, f"seed={seed}", "method=a")
        write_run(tmp_path / f"b{seed}", job + 2, 29 + shift, f"seed={seed}", "method=b", lost=3)
    write_run(tmp_path / "c", 9, 50, "seed=99", "method=c")
    write_report(tmp_path, tmp_path / "report")
    rows = _all_videos(list(csv.DictReader((tmp_path / "report/table.csv").open())))
    assert rows["method=b"]["verdict"] == "interval excludes zero: lower"
    assert [rows["method=b"][key] for key in ("difference_low", "difference_high")] == ["-1.0", "-1.0"]
    assert float(rows["method=a"]["high"]) - float(rows["method=a"]["low"]) > 25
    assert rows["method=c"]["verdict"] == "no video and seed in common"


def test_unfinished_runs_are_named_and_not_counted(page, written):
    assert "<code>method=alike,seed=3</code>" in page and "9 scored runs" in page
    assert "Without scores: `method=alike,seed=3`." in (written / "table.md").read_text()


def test_the_page_is_whole_in_itself_and_names_every_variant_escaped(sweep, page):
    for label in ("method=second&lt;b&gt;", "method=first", "method=alike", "copy", "ceiling"):
        assert f">{label}</th>" in page
    assert "<b>,seed" not in page and "second<b>" not in page
    assert sweep.name in page and str(sweep.parent) not in page
    assert "<script" not in page and "http" not in page and "url(" not in page
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]
    sizes = [picture.convert("RGB").size for picture in pictures]
    assert sizes.count((24, 8)) == 3 * 2, "the strips of the first run of each variant"
    assert len([size for size in sizes if size[0] > 800]) == len(sizes) - 6 == 5, "the plots"


def test_the_same_folder_gives_the_same_files_and_says_what_has_no_scores(sweep, written, tmp_path, capsys):
    write_report(sweep, tmp_path)
    assert capsys.readouterr().out == "without scores: method=alike,seed=3\n"
    once, again = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (written, tmp_path))
    plots = {f"{name}.png" for name in ("variants", "parts", "tasks", "frames", "curves")}
    assert once == again and set(once) == plots | {"report.html", "table.csv", "table.md"}


def test_markdown_tables_are_rectangular(written):
    tables = [part for part in (written / "table.md").read_text().split("\n\n") if part[0] == "|"]
    assert len(tables) == 4 and len(tables[2].splitlines()) == 2 + len(TASKS)
    assert all(len({line.count("|") for line in part.splitlines()}) == 1 for part in tables)
    assert "| method=first | 45.0 (" in tables[0] and "| +5.0 (+" in tables[0] and "second&#60;b&#62;" in tables[0]


def test_a_number_that_varies_is_plotted_against(tmp_path):
    for job, pairs in enumerate((1000, 300, 3000)):
        for method in ("a$_", "b"):
            write_run(tmp_path / f"{job}{method}", job, 30 + job, f"data.pairs={pairs}", f"method={method}")
    text = write_report(tmp_path, tmp_path / "report").read_text()
    assert (tmp_path / "report/against_data.pairs.png").is_file()
    assert "data.pairs=300 method=a$_" in text and "against data.pairs" in text


def test_a_single_evaluation_is_called_adapter(tmp_path):
    write_scores(tmp_path, 50)
    write_report(tmp_path, tmp_path / "report")
    rows = _all_videos(list(csv.DictReader((tmp_path / "report/table.csv").open())))
    assert list(rows) == ["adapter", "copy", "ceiling"] and float(rows["adapter"]["overall"]) == pytest.approx(50)
    assert not (tmp_path / "report/curves.png").exists()
    assert "paired" not in (tmp_path / "report/report.html").read_text()


def test_labels_hold_no_machines_paths(tmp_path):
    for name in ("one", "two"):
        start_run(tmp_path / name, 0, f"adapter=/data/of/me/{name}/adapter.safetensors", f"out={tmp_path / name}")
        write_scores(tmp_path / name, 50)
    text = write_report(tmp_path, tmp_path / "report").read_text()
    assert ">adapter=one/adapter.safetensors</th>" in text and "/data/of" not in text


BROKEN = {
    "scores/videos.parquet": "is not a valid parquet file",
    ".hydra/overrides.yaml": "cannot be read",
    "csv/metrics.csv": "is not a valid table of metrics",
    "adapter.safetensors": "is not a complete safetensors file",
    f"scores/strips/{TASKS[0]}.png": "is not a valid image",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    write_run(tmp_path / "run", 0, 50, "seed=0")
    (tmp_path / "run" / name).write_bytes(b"step,validation/loss\n]: {\xff,\xff\n")
    with pytest.raises(UserError, match=BROKEN[name]) as caught:
        write_report(tmp_path, tmp_path / "report")
    assert str(tmp_path / "run" / name) in str(caught.value) and not (tmp_path / "report").exists()


def test_rows_that_lack_a_column_are_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"editor": ["adapter"]}), tmp_path / "videos.parquet")
    with pytest.raises(UserError, match="lacks the columns adherence"):
        write_report(tmp_path, tmp_path / "report")


@pytest.mark.slow
def test_mistakes_end_the_command_with_one_line_and_code_2(tmp_path):
    for name in ("empty", "torn"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn/videos.parquet").write_bytes(b"PAR1 and no more")
    expected = {"missing": "there is no folder", "empty": "no scores", "torn": "is not a valid parquet file"}
    for name in expected:
        done = run("imvideoedit.evaluation.nano.report", tmp_path / name, forked=name != "missing")
        errors = done.stderr
        assert done.returncode == 2 and len(errors.splitlines()) == 1
        assert errors.startswith("error: ") and expected[name] in errors and str(tmp_path / name) in errors


def test_every_template_is_packaged():
    data = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = CHECKOUT / "imvideoedit/evaluation/reporting"
    packaged = {path for pattern in data["imvideoedit.evaluation.reporting"] for path in folder.glob(pattern)}
    assert packaged == set(folder.glob("*.j2")) and len(packaged) > 2
