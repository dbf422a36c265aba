import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.data.check import main
from tests.processes import run


def check(*arguments: object, forked: bool = True) -> tuple[int, str, str]:
    done = run("imvideoedit.data.check", *arguments, forked=forked)
    return done.returncode, done.stdout, done.stderr


def write_pair(folder: Path, number: int, size=(48, 64), target_size=None, **changes) -> dict:
    for side, (height, width) in {"a": size, "b": target_size or size}.items():
        Image.fromarray(np.full((height, width, 3), 9 * number, np.uint8)).save(folder / f"{number}_{side}.png")
    row = {"id": f"p{number}", "task": "relighting", "source": f"{number}_a.png", "target": f"{number}_b.png"}
    return row | {"instruction": "dim it", "source_prompt": "a lit room", "edited_prompt": "a dim room"} | changes


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_clean_data_set_is_summed_up(tmp_path):
    rows = [write_pair(tmp_path, 0), write_pair(tmp_path, 1, task="style_transfer"), write_pair(tmp_path, 2, (40, 80))]
    write_rows(tmp_path, rows)
    code, out, err = check(tmp_path, "--max-area", 64 * 64, "--pixel-multiple", 16, forked=False)
    assert (code, err) == (0, "")
    counts = [tuple(line.split()) for line in out.splitlines() if line.startswith(" ")]
    assert counts[:4] == [("2", "relighting"), ("1", "style_transfer"), ("2", "64x48"), ("1", "80x40")]
    assert sum(int(count) for count, _ in counts[4:]) == 3  # each good row lies in one bucket
    assert out.splitlines()[-1] == "3 of 3 rows are good"


def test_every_bad_row_is_named_with_its_cure(tmp_path):
    rows = [
        write_pair(tmp_path, 0),
        write_pair(tmp_path, 1, target_size=(48, 32)),
        write_pair(tmp_path, 2, task="cooking"),
        write_pair(tmp_path, 3, source="gone.png"),
        write_pair(tmp_path, 4),
        write_pair(tmp_path, 5, id="p0"),
        write_pair(tmp_path, 6, target="../secret.png"),
    ]
    data = (tmp_path / "4_b.png").read_bytes()
    (tmp_path / "4_b.png").write_bytes(data[: len(data) * 2 // 3])
    write_rows(tmp_path, rows)
    code, out, err = check(tmp_path)
    assert (code, err) == (2, "")
    bad = [line for line in out.splitlines() if line.startswith("bad ")]
    expected = [
        ("row 1 (p1)", "source is 64x48 but target is 32x48", "crop or resize"),
        ("row 2 (p2)", "unknown task 'cooking'", "use one of"),
        ("row 3 (p3)", "gone.png", "check the path"),
        ("row 4 (p4)", "4_b.png", "replace"),
        ("row 5 (p0)", "row 0 has the same id", "give each row its own"),
        ("row 6 (p6)", "leads out of the data folder", "move the file"),
    ]
    assert len(bad) == len(expected)
    for line, parts in zip(bad, expected, strict=True):
        assert all(part in line for part in parts), line
    assert out.splitlines()[-1] == "1 of 7 rows are good"


@pytest.mark.parametrize(
    ("name", "message"), [("none", "no such folder"), (".", "holds no metadata.jsonl"), ("empty", "holds no rows")]
)
def test_what_is_no_data_set_ends_with_one_line(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/metadata.jsonl").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / name)])
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("error: ") and message in captured.err


def test_what_training_would_not_see_is_told_by_kind(tmp_path):
    long = "a red box " * 200
    rows = [
        write_pair(tmp_path, 0, (20, 240), edited_prompt=long + "left"),
        write_pair(tmp_path, 1, (8, 8), edited_prompt=long + "right"),
        write_pair(tmp_path, 2, (640, 640), split="test"),
        write_pair(tmp_path, 3, (64, 64)),
    ]
    write_rows(tmp_path, rows)
    code, out, err = check(tmp_path, "--max-area", 64 * 64)
    assert (code, err) == (0, "") and out.splitlines()[-1] == "4 of 4 rows are good"
    warnings = [line.removeprefix("warning: ") for line in out.splitlines() if line.startswith("warning: ")]
    assert warnings[0].startswith("1 cropped by more than a quarter, first row 0 (p0): 86% of 240x20 is outside 80x48")
    assert "2 texts cut off, first row 0 (p0): 601 words, of which the model reads at most 511 tokens" in warnings
    assert "2 blown up, first row 0 (p0): 2.4 times, 240x20 to 80x48" in warnings
    same = "1 different texts that are the same as far as they are read, first row 1 (p1): as row 0 (p0)"
    assert same in warnings
    assert "1 much reduced, first row 2 (p2): to 0.10, 640x640 to 64x64" in warnings
    assert "1 rows of another split, trained on all the same, first row 2 (p2): its column split says test" in warnings
