"""The backbone's identity: one name for its weights however they are wrapped, and hashed once for its files."""

import json
import os
import shutil

import pytest
import torch

from imvideoedit.editing.lora import fuse_lora
from imvideoedit.methods.adapter_file import load_adapter, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan import identity
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.identity import parameter_hash
from imvideoedit.wan.kinship import sketch
from tests.conftest import tiny_transformer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMVIDEOEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "backbones.json"


def entries_of(cache):
    """The hashes in the file, without its checksum."""
    return {key: value for key, value in json.loads(cache.read_text()).items() if key != "check"}


@pytest.fixture
def hashed(monkeypatch):
    """How many values each hash of more than a sample took."""
    counts = []

    def counting(tensors, dtype=None):
        counts.append(sum(tensor.numel() for tensor in tensors.values()))
        return original(tensors, dtype)

    original = identity.hash_tensors
    monkeypatch.setattr(identity, "hash_tensors", counting)
    return lambda: sum(count == sum(p.numel() for p in tiny_transformer().parameters()) for count in counts)


@pytest.fixture
def folder(wan_folder, tmp_path):
    return shutil.copytree(wan_folder, tmp_path / "wan")


def load(folder, **options):
    return load_backbone(str(folder), device="cpu", parts=(), **options)


def test_wrappers_change_no_hash():
    transformer = tiny_transformer()
    known = parameter_hash(transformer)
    for block in list(transformer.blocks):
        block.attn1 = torch.compile(block.attn1)  # its names gain _orig_mod
    assert any("_orig_mod" in name for name, _ in transformer.named_parameters())
    assert parameter_hash(transformer) == known

    class Parallel(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert parameter_hash(Parallel(transformer)) == known


def test_files_are_hashed_once_and_by_every_process_alike(folder, cache, hashed):
    first = load(folder).parameter_hash()
    assert first == parameter_hash(tiny_transformer()) and hashed() == 2
    backbone = load(folder)
    PredictUpdate().install(backbone.transformer)
    assert backbone.parameter_hash() == first and hashed() == 2
    assert load(folder, dtype=torch.bfloat16).parameter_hash() == first and hashed() == 3, "a dtype of its own"
    assert list(cache.parent.iterdir()) == [cache] and len(entries_of(cache)) == 2


def test_the_cache_is_in_the_users_folder(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("IMVIDEOEDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load(folder).parameter_hash()
    assert (tmp_path / "xdg/imvideoedit/backbones.json").is_file()


def fuse(backbone, tmp_path):
    from safetensors.torch import save_file

    name, width = "transformer.blocks.0.attn1.to_q", backbone.transformer.blocks[0].attn1.to_q.in_features
    pair = {f"{name}.lora_A.weight": torch.ones(1, width), f"{name}.lora_B.weight": torch.ones(width, 1)}
    save_file(pair, tmp_path / "lora.safetensors")
    fuse_lora(backbone.transformer, tmp_path / "lora.safetensors", 0.5)


def change_in_place(backbone, tmp_path):
    with torch.no_grad():
        backbone.transformer.proj_out.bias[0] += 1


def change_data(backbone, tmp_path):
    backbone.transformer.proj_out.weight.data.mul_(2)


def replace_module(backbone, tmp_path):
    backbone.transformer.proj_out = torch.nn.Linear(24, 16)


@pytest.mark.parametrize("change", [fuse, change_in_place, change_data, replace_module])
def test_a_changed_transformer_is_not_taken_for_its_files(change, folder, cache, tmp_path):
    known = load(folder).parameter_hash()
    backbone = load(folder)
    change(backbone, tmp_path)
    assert backbone.parameter_hash() == parameter_hash(backbone.transformer) != known
    assert load(folder).parameter_hash() == known, "a changed model was kept as the files' own"


def test_changed_files_are_hashed_again(folder, cache):
    known = load(folder).parameter_hash()
    other = tiny_transformer(seed=4)
    other.save_pretrained(folder / "transformer")
    assert load(folder).parameter_hash() == parameter_hash(other) != known
    (weights,) = (folder / "transformer").glob("*.safetensors")
    stat = weights.stat()
    tiny_transformer(seed=5).save_pretrained(folder / "transformer")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time, other weights
    config = folder / "transformer" / "config.json"
    os.utime(config, ns=(entries_of(cache).popitem()[1]["files"][0][2],) * 2)
    assert load(folder).parameter_hash() == parameter_hash(tiny_transformer(seed=5))


DAMAGED = ["", "{", "[]", "3", "[" * 100_000, b"\xff\xfe", "wrong hash", "wrong types"]


@pytest.mark.parametrize("damage", DAMAGED, ids=lambda damage: str(damage[:12]))
def test_a_damaged_cache_is_made_anew(damage, folder, cache):
    known = load(folder).parameter_hash()
    if damage in ("wrong hash", "wrong types"):
        entries = entries_of(cache)
        for entry in entries.values():
            entry |= {"hash": "no hash"} if damage == "wrong hash" else {"hash": 3, "files": {}, "sample": []}
        damage = json.dumps(entries)
    cache.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert load(folder).parameter_hash() == known
    (entry,) = entries_of(cache).values()
    assert entry["hash"] == known


def test_a_cache_that_cannot_be_written_stops_nothing(folder, cache, caplog):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be")
    assert load(folder).parameter_hash() == parameter_hash(tiny_transformer())
    assert "is not kept" in caplog.text


class Widened(torch.nn.Module):
    """The frozen layer of the backbone, and a trained one beside it."""

    def __init__(self, layer, extra):
        super().__init__()
        self.layer, self.extra = layer, extra

    def forward(self, x):
        return self.layer(x) + self.extra(x)


def test_what_a_method_puts_into_the_transformer_does_not_count(folder, cache, tmp_path):
    known = load(folder).parameter_hash()
    backbone, method = load(folder), PredictUpdate()
    method.install(backbone.transformer)
    layer = backbone.transformer.patch_embedding
    method.extra = torch.nn.Conv3d(4, layer.out_channels, layer.kernel_size, layer.stride)
    backbone.transformer.patch_embedding = Widened(layer, method.extra)
    header = AdapterHeader.describe(method, backbone, {})
    named = {key: header.backbone[key] for key in ("name", "revision", "parameter_hash")}
    assert named == {"name": str(folder), "revision": None, "parameter_hash": known}
    assert header.backbone["sketch"] == sketch(load(folder).transformer)
    backbone.transformer.patch_embedding = layer
    del method.extra
    save_adapter(method, tmp_path / "adapter.safetensors", header)
    load_adapter(tmp_path / "adapter.safetensors", load(folder).transformer)
