"""What trains is the split called train, told by files and folders; another is taken only where it is asked for."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_recipes.foreign_rows import stream
from data_recipes.import_pairs import imported, main
from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from imvideoedit.data.splits import split_of

TEXTS = {"task": "object_addition", "instruction": "add", "source_prompt": "a", "edited_prompt": "b"}


def write(path: Path, *ids: str) -> None:
    """A parquet file of pairs with their pictures inside."""
    rows = []
    for number, name in enumerate(ids):
        sides = {}
        for side in ("source", "target"):
            buffer = io.BytesIO()
            Image.new("RGB", (16, 16), (number * 9, len(path.stem), 200 if side == "target" else 0)).save(buffer, "PNG")
            sides[side] = {"bytes": buffer.getvalue(), "path": None}
        rows.append(TEXTS | {"id": name} | sides)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(params=["default/{}/0000.parquet", "{}-00000-of-00001.parquet", "data/my_{}.parquet"])
def folder(request, tmp_path) -> Path:
    """A data set with three splits, by the names of its folders or files."""
    for split, count in (("train", 4), ("test", 3), ("validation", 2)):
        write(tmp_path / request.param.format(split), *(f"{split}{number}" for number in range(count)))
    return tmp_path


def test_only_the_split_that_is_asked_for_is_read(folder):
    assert [record.id for record in open_records(folder)] == [f"train{number}" for number in range(4)]
    assert [record.id for record in open_records(folder, split="val")] == ["validation0", "validation1"]
    for split, count in ((None, 4), ("test", 3), ("dev", 2)):
        assert len(list(stream(str(folder), split))) == count
    for read in (lambda: open_records(folder, split="extra"), lambda: list(stream(str(folder), "extra"))):
        with pytest.raises(UserError, match="no split extra; it holds the splits test, train, validation"):
            read()


def test_an_import_takes_its_split_or_refuses_it(folder, tmp_path, capsys):
    columns = ["--map", "source=source,target=target,instruction=instruction"]
    main(["--from", str(folder), *columns, "--split", "validation", "--out", str(tmp_path / "out")])
    assert "imported 2 of 2 pairs" in capsys.readouterr().out
    assert imported(tmp_path / "out").manifest()["rows"] == 2
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "metadata.jsonl").write_text(json.dumps(TEXTS) + "\n")
    with pytest.raises(SystemExit):
        main(["--from", str(plain), *columns, "--split", "validation", "--out", str(tmp_path / "none")])
    assert "has no splits as jsonl, so split=validation is without effect; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "none" / "import").exists()


@pytest.mark.parametrize(
    ("path", "split"),
    [("train.parquet", "train"), ("a/training/0.parquet", "train"), ("val/0.parquet", "validation")]
    + [("x_dev.parquet", "validation"), ("eval-1.parquet", "test"), ("train/test_0.parquet", "test")]
    + [("trains.parquet", None), ("attest/0.parquet", None), ("train_test.parquet", None)],
)
def test_a_split_is_a_word_of_the_name_and_the_file_goes_before_its_folder(path, split):
    assert split_of(Path(path)) == split
