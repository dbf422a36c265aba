"""Rows of other people's pairs: from lists, parquet files and the hub, with images as they are stored."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.common.terminal import say
from imvideoedit.data.dataset_rows import parquet_files
from imvideoedit.data.splits import TRAIN, refuse_split, split_folder

ROWS_AT_ONCE = 100


def stream(origin: str, split: str | None = None, config: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield rows with their names; images stay encoded, and nothing that a cell names is opened here.

    Args:
        origin: a folder with ``metadata.jsonl`` (or one other ``.jsonl``) next to its images, a folder of parquet
            files, or the id of a data set on the hub.
        split: of the parquet files, by their names and folders, or of a data set on the hub; ``train`` if None.
        config: of a data set on the hub.

    Raises:
        UserError: the data set does not exist, cannot be read, or has no such split or config.
    """
    folder = Path(origin)
    if folder.is_dir():
        if config is not None:
            raise UserError(f"--config {config} is of a data set on the hub, but {folder} is a folder; leave it out")
        folder, split = split_folder(folder, split)
        lists = [folder / "metadata.jsonl"] if (folder / "metadata.jsonl").is_file() else sorted(folder.glob("*.jsonl"))
        if len(lists) == 1:
            refuse_split(folder, split, "jsonl")
            yield from _lines(lists[0])
            return
        if not any(folder.rglob("*.parquet")):
            raise UserError(f"{folder} holds neither one .jsonl nor parquet files; point to the folder that does")
        files, said = parquet_files(folder, split)
        if said:
            say(f"reads {origin}{said}")
        yield from _parquet(files)
        return
    if origin.count("/") != 1 or origin.startswith((".", "/", "~")):
        raise UserError(f"there is no folder {origin}; give one, or the id of a data set on the hub")
    yield from _hub(origin, split or TRAIN, config)


def _parquet(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE):
                    for row in batch.to_pylist():
                        yield f"row {number}", row | {"": path.parent}
                        number += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); download it again") from error


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = parse_json(line, f"line {number} of {path}", fix="fix or remove it")
                yield f"line {number}", row | {"": path.parent}


def _hub(origin: str, split: str, config: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    try:
        rows = datasets.load_dataset(origin, name=config, split=split, streaming=True)
        # Of every column, also of those that nobody asked for: decoding would open what their cells name.
        rows = rows.decode(False) if rows.features else rows
        for number, row in enumerate(rows):
            yield f"row {number}", row
    except UserError:
        raise
    except Exception as error:  # from the hub, the network, the file system or their libraries
        raise UserError(f"{origin} cannot be read ({error}); check its name, its split and the network") from error
