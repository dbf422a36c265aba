"""Data of others open nothing: no address is asked, and no file outside the data set is opened."""

import io
import json
import os
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.processes import run

TEXTS = {"id": "1", "task": "object_addition", "instruction": "add", "source_prompt": "a", "edited_prompt": "b"}


def audited(seen: Path, cache: Path) -> None:
    """In a command's process, before it runs: write down what is opened and where a socket connects to."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = str(cache)  # the library has read the environment already
    file = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            os.write(file, f"open {os.fsdecode(args[0])}\n".encode())
        elif event in ("socket.connect", "socket.getaddrinfo"):
            os.write(file, f"{event} {args[1:]}\n".encode())

    sys.addaudithook(hook)


@pytest.fixture(scope="module")
def counting():
    """The address of a server, and the requests that it got."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()


def png(path: Path | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def write(form: str, folder: Path, cell: str, used: bool) -> None:
    """One pair whose source, or a column that nobody asks for, names ``cell``."""
    embedded = {"bytes": png(), "path": None}
    named = {"bytes": None, "path": cell}
    if form == "jsonl":
        png(folder / "a.png")
        cells = {"source": cell if used else "a.png", "target": "a.png"} | ({} if used else {"other": cell})
        (folder / "metadata.jsonl").write_text(json.dumps(TEXTS | cells) + "\n")
        return
    row = TEXTS | {"source": named if used else embedded, "target": embedded}
    row |= {} if used else {"other": named, "several": [named]}
    if form == "saved":
        import datasets

        rows = datasets.Dataset.from_list([row])
        for name in {"source", "target", "other"} & set(row):  # given to the schema, not to the cells
            rows.info.features[name] = datasets.Image()
        rows._data = rows._data.cast(rows.features.arrow_schema)
        save_unembedded(rows, folder)
        return
    image = {"_type": "Image"}
    features = {name: {"dtype": "string", "_type": "Value"} for name in TEXTS} | {"source": image, "target": image}
    features |= {} if used else {"other": image, "several": {"feature": image, "_type": "List"}}
    table = pa.Table.from_pylist([row], schema(row))
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(described), folder / "train-0.parquet")


def save_unembedded(rows, folder: Path) -> None:
    """As ``save_to_disk``, which would open what cells name while it writes."""
    with pa.OSFile(str(folder / "data-0.arrow"), "wb") as sink, pa.ipc.new_stream(sink, rows.data.schema) as writer:
        writer.write_table(rows.data.table)
    rows.info.write_to_directory(str(folder))
    state = {"_data_files": [{"filename": "data-0.arrow"}], "_fingerprint": "1", "_format_columns": None}
    state |= {"_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


def schema(row: dict) -> pa.Schema:
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {str: pa.string(), dict: cell, list: pa.list_(cell)}
    return pa.schema([(name, kinds[type(value)]) for name, value in row.items()])


@pytest.mark.slow
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("form", ["parquet", "saved", "jsonl"])
@pytest.mark.parametrize("kind", ["address", "absolute", "dots"])
def test_no_reader_opens_what_a_cell_names(counting, tmp_path, form, used, kind):
    url, requests = counting
    before = len(requests)
    secret = tmp_path / "secret.png"
    png(secret)
    folder = tmp_path / "data"
    folder.mkdir()
    cell = {"address": f"{url}/x.png", "absolute": str(secret), "dots": "../secret.png"}[kind]
    write(form, folder, cell, used)
    commands = [("tests.load_records", str(folder), "auto"), ("imvideoedit.data.check", str(folder))]
    if form != "saved":
        mapping = "source=source,target=target,instruction=instruction"
        out = ("--out", str(tmp_path / "out"))
        commands.append(("data_recipes.import_pairs", "--from", str(folder), "--map", mapping, *out))
    for command in commands:
        seen = tmp_path / "seen"
        seen.unlink(missing_ok=True)
        done = run(*command, before=partial(audited, seen, tmp_path / "cache"))
        lines = seen.read_text().splitlines()
        assert not [line for line in lines if "secret.png" in line or line.startswith("socket")], command
        said = done.stdout + done.stderr
        assert "Traceback" not in said and len(requests) == before, said
        if not used:
            assert done.returncode == 0, said
        elif command[0] == "data_recipes.import_pairs":
            assert "imported 0 of 1 pairs" in said and "1 rejected: image" in said
        else:
            (line,) = [line for line in said.splitlines() if line.startswith(("bad ", "error: "))]
            assert done.returncode and line.split(maxsplit=1)[1].startswith("row 0 (1): source"), said
            assert ("is an address, and nothing is fetched" if kind == "address" else "leads out of the data") in line
