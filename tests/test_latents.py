"""Pairs encoded once: exact, without repetition, again only where changed, and complete after any kills."""

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from imvideoedit.data.shards import ProcessInfo, ShardStore
from imvideoedit.data.sizes import Bucket, make_buckets
from imvideoedit.nano.encoded import encoded_pairs
from imvideoedit.nano.pair_set import PairSet
from imvideoedit.training.encoding import LatentPairs, encode_dataset
from imvideoedit.training.examples import bucket_of
from imvideoedit.wan.backbone import load_backbone
from tests.pair_folder import SHAPES, write_pairs
from tests.processes import SERVER

CPU = torch.device("cpu")
PAIRS = int(os.environ.get("IMVIDEOEDIT_CACHED", "48"))
KILLS = 5


def encoded(folder: Path, wan_folder: Path, process: ProcessInfo | None = None) -> LatentPairs:
    records = open_records(folder / "pairs")
    buckets = [bucket_of(record, make_buckets(1024, 16), (1,), ()) for record in records]
    backbone = load_backbone(str(wan_folder), device="cpu", parts=())
    return encode_dataset(folder / "cache", backbone, records, buckets, CPU, process)


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_items_are_what_the_encoders_make(wan_folder, tmp_path):
    write_pairs(tmp_path / "pairs", 7)
    pairs, backbone = encoded(tmp_path, wan_folder), load_backbone(str(wan_folder), device="cpu")
    records = open_records(tmp_path / "pairs")
    batch = pairs.collate([pairs[index] for index in (0, 3)])
    assert batch.ids == ("p0", "p3") and batch.source_BCFHW.dtype == torch.float32
    for row, index in enumerate((0, 3)):
        assert pairs.buckets[index] == Bucket(1, *SHAPES[0])
        for found, image in zip((batch.source_BCFHW, batch.target_BCFHW), records[index].load(), strict=True):
            video = torch.from_numpy(image).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
            torch.testing.assert_close(found[row : row + 1], backbone.encode_video(video), rtol=2e-3, atol=2e-3)
        text = backbone.encode_text([records[index].edited_prompt])[0]
        torch.testing.assert_close(batch.text_BTD[row].float(), text, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(batch.empty_TD.float(), backbone.encode_text([""])[0], rtol=2e-3, atol=2e-3)


def test_only_what_changed_is_encoded_again(wan_folder, tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs", 9)
    encoded(tmp_path, wan_folder)
    before = stored(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("imvideoedit.training.encoding.with_parts", None)  # no encoder is even loaded
        encoded(tmp_path, wan_folder)
    assert stored(tmp_path / "cache") == before
    pixels = np.full((*SHAPES[0], 3), 9, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pairs" / "4t.png")
    pairs = encoded(tmp_path, wan_folder)
    added = stored(tmp_path / "cache").keys() - before.keys()
    assert len(added) == 1 and stored(tmp_path / "cache").items() >= before.items()
    assert len(pairs.images) == 2 * 9 + 1
    new = ShardStore(tmp_path / "cache" / "images")
    assert new.read(pairs.pairs[4][0].latents["target"])["latents"].equal(pairs[4].target)


def test_entries_keep_the_keys_that_they_always_had(tmp_path, monkeypatch):
    """Literal keys of the first release: a cache that someone has encoded is not to be encoded again."""
    monkeypatch.setattr("imvideoedit.training.encoding.encoder_name", lambda backbone, part: f"some {part}")
    (tmp_path / "pairs").mkdir()
    rows = []
    for row, (height, width) in enumerate([(16, 16), (16, 32)]):
        for side, level in (("s", 40 + row), ("t", 200 + row)):
            pixels = bytes([level]) * (3 * height * width)
            (tmp_path / f"pairs/{row}{side}.ppm").write_bytes(f"P6 {width} {height} 255\n".encode() + pixels)
        texts = {"instruction": "dim it", "source_prompt": "a lit room", "edited_prompt": f"a dim room {row}"}
        rows.append({"id": f"p{row}", "task": "relighting", "source": f"{row}s.ppm", "target": f"{row}t.ppm", **texts})
    (tmp_path / "pairs/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    records, backbone = open_records(tmp_path / "pairs"), load_backbone("nano", device="cpu", parts=())
    buckets = [bucket_of(record, make_buckets(1024, 16), (1,), ()) for record in records]
    pairs = encode_dataset(tmp_path / "cache", backbone, records, buckets, CPU)
    assert [(item.latents["source"], item.latents["target"], item.texts["prompt"]) for (item,) in pairs.pairs] == [
        ("b59cf8e53a0ea59b072423b576a5c15e", "3e4546033263f4a1c15c0205bc612d0b", "81104b49c2679f58230c09146f4f59a7"),
        ("1fdab88a56d888dbdb9621b552dd53f4", "6c0497dc7dc1347fc3e5be83db590294", "ec666472c5b709cc7033620b94e66181"),
    ]
    assert pairs.empty == "d407d29059e600a899b9ad43d21525b4"
    assert set(stored(tmp_path)) == {
        "cache/images/9af0dd87e56f9044.safetensors",
        "cache/texts/6c21252fea59d2f0.safetensors",
    }


def test_what_rows_share_is_stored_once(wan_folder, tmp_path):
    write_pairs(tmp_path / "pairs", 4)
    path = tmp_path / "pairs" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows.append({**rows[0], "id": "again"})
    path.write_text("\n".join(map(json.dumps, rows)))
    pairs = encoded(tmp_path, wan_folder)
    assert len(pairs) == 5 and len(pairs.images) == 8 and len(pairs.texts) <= 5
    assert all(a.equal(b) for a, b in zip(pairs[0][1:4], pairs[4][1:4], strict=True))


def test_a_flipped_byte_is_noticed_and_encoded_again(wan_folder, tmp_path, capsys):
    write_pairs(tmp_path / "pairs", 6)
    encoded(tmp_path, wan_folder)
    pairs = encoded(tmp_path, wan_folder)
    wanted = [[tensor.clone() for tensor in pairs[index][1:4]] for index in range(6)]  # they are mapped from the file
    (path,) = (tmp_path / "cache" / "images").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    found = encoded(tmp_path, wan_folder)
    assert "it will be encoded again" in capsys.readouterr().out
    for index, tensors in enumerate(wanted):
        for one, other in zip(found[index][1:4], tensors, strict=True):
            torch.testing.assert_close(one.float(), other.float(), rtol=2e-3, atol=2e-3)


def test_a_damaged_image_is_named_and_what_was_done_stays(wan_folder, tmp_path):
    write_pairs(tmp_path / "pairs", 6)
    encoded(tmp_path, wan_folder)
    before = stored(tmp_path / "cache")
    damaged = tmp_path / "pairs" / "5s.png"
    damaged.write_bytes(damaged.read_bytes()[:80])
    with pytest.raises(UserError, match=r"row 5 \(p5\)"):
        encoded(tmp_path, wan_folder)
    assert stored(tmp_path / "cache") == before


def encode_nano(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    encoded_pairs(folder, load_backbone("nano", device="cpu"), PairSet(0, count, "train"))


@pytest.mark.slow
def test_killed_five_times_the_cache_is_that_of_an_uninterrupted_run(tmp_path):
    began = time.monotonic()
    full = SERVER.Process(target=encode_nano, args=(tmp_path / "full", PAIRS))
    full.start()
    full.join()
    took, draw = time.monotonic() - began, random.Random(3)
    kills = 0
    while kills < KILLS:
        process = SERVER.Process(target=encode_nano, args=(tmp_path / "parts", PAIRS))
        process.start()
        process.join(draw.uniform(0.02, 0.19) * took)  # so that five do not see its end
        if not process.is_alive():
            break  # it was done before the last kill
        process.kill()
        process.join()
        kills += 1
    encode_nano(tmp_path / "parts", PAIRS)
    assert kills == KILLS or PAIRS < 1000
    assert stored(tmp_path / "parts") == stored(tmp_path / "full")
    store = ShardStore(tmp_path / "parts" / "pairs")
    assert len(store) == PAIRS and store.repair() == 0
    began = time.monotonic()
    encode_nano(tmp_path / "parts", PAIRS)
    print(f"{PAIRS} pairs in {took:.0f} s; {kills} kills; a second start takes {time.monotonic() - began:.1f} s")
    assert stored(tmp_path / "parts") == stored(tmp_path / "full")
