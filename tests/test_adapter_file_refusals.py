"""Adapter files that must not load."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from imvideoedit.common.errors import UserError
from imvideoedit.methods.adapter_file import adapter_hash, load_adapter, read_header, read_state
from imvideoedit.methods.adapter_header import FORMAT_VERSION
from imvideoedit.wan.forward import denoise
from imvideoedit.wan.identity import parameter_hash
from tests.conftest import tiny_batch, tiny_transformer
from tests.test_adapter_file import SIGMA, rewrite, saved

MASK = {"name": "mask", "kind": "mask", "encoder": "raw", "required": True}
POSE = {"name": "pose", "kind": "pose", "encoder": "vlm", "required": False}


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "adapter.safetensors"
    saved(path)
    rewrite(path)
    return path


def plain_velocity(transformer):
    batch = tiny_batch()
    return denoise(transformer, batch.target_BCFHW, SIGMA, batch.text_BTD)


def test_another_backbone_is_refused_by_both_names(adapter):
    other = tiny_transformer(seed=9)
    with pytest.raises(UserError) as caught:
        load_adapter(adapter, other)
    for expected in ("tiny", parameter_hash(tiny_transformer()), parameter_hash(other), str(adapter)):
        assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for read in (read_header, read_state, adapter_hash, lambda path: load_adapter(path, tiny_transformer())):
        with pytest.raises(UserError, match=r"no adapter file at .*nowhere"):
            read(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64], ids=["empty", "text", "bytes"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_adapter(path, tiny_transformer())


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(adapter, share):
    full = adapter.read_bytes()
    adapter.write_bytes(full[: int(share * len(full))])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_adapter(adapter, tiny_transformer())


def test_safetensors_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no imvideoedit adapter"):
        load_adapter(path, tiny_transformer())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "upgrade"),
        ({"format_version": None}, "no imvideoedit adapter"),
        ({"format_version": "two"}, "no imvideoedit adapter"),
        ({"surprise": 1}, "no imvideoedit adapter"),
        ({"method": "magic"}, "method 'magic'; this imvideoedit knows predict_update, aligned_update, parallel_2d"),
        ({"config": {"magic": 1}}, "does not know"),
        ({"config": {"adapter": "magic"}}, "method.adapter is 'magic'"),
        ({"config": ["lora"]}, "no imvideoedit adapter"),
        ({"backbone": "nano"}, "no imvideoedit adapter"),
        ({"config": {"adapter": "lora", "rank": 5}}, "does not fit its own settings"),
        ({"config": {"adapter": "full"}}, "does not fit its own settings"),
        ({"config": {"adapter": "lora", "rank": "4"}}, "settings its method does not know"),
        (
            {"inputs": [{"name": "mask", "kind": "mask", "encoder": "raw", "required": True}]},
            r"takes mask \(mask, raw\), but .*predict_update takes no inputs; upgrade",
        ),
        (
            {"inputs": [{"name": "pose", "kind": "pose", "encoder": "vlm", "required": False}]},
            r"pose \(pose, vlm, optional\), but .*upgrade",
        ),
        ({"inputs": None}, "no imvideoedit adapter: .*inputs"),
        ({"inputs": [{"name": "mask"}]}, "no imvideoedit adapter: .*inputs.kind"),
        ({"backbone": {"name": "tiny"}}, "no imvideoedit adapter: .*backbone.parameter_hash"),
        ({"training": {"sampler": [1]}}, "no imvideoedit adapter: .*training.sampler"),
    ],
    ids=str,
)
def test_a_wrong_header_is_refused_and_leaves_the_model_alone(adapter, header, message):
    rewrite(adapter, **header)
    transformer = tiny_transformer()
    names = list(transformer.state_dict())
    with pytest.raises(UserError, match=message):
        load_adapter(adapter, transformer)
    assert list(transformer.state_dict()) == names
    assert torch.equal(plain_velocity(transformer), plain_velocity(tiny_transformer()))


ENTRIES = ["format_version", "package_version", "method", "config", "inputs", "backbone", "training"]
ODD = [3, -1, 2.5, True, "text", "", [], [3], [[]], {"": 3}, {"name": 3, "kind": [], "encoder": {}, "required": 1}]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("entry", ENTRIES)
def test_odd_values_of_any_entry_cost_one_line_or_nothing(adapter, entry, odd):
    rewrite(adapter, **{entry: odd})
    try:
        load_adapter(adapter, tiny_transformer())
        assert (entry, odd) in [("package_version", "text"), ("package_version", ""), ("inputs", [])] or (
            entry == "training" and isinstance(odd, dict)
        )
    except UserError as error:
        assert str(adapter) in str(error) and "\n" not in str(error)


def test_metadata_that_is_no_json_is_refused(adapter):
    with safe_open(adapter, framework="pt") as file:
        metadata = file.metadata()
    for text in ("{", "[" * 100_000, "\ufeff1", ""):
        save_file(load_file(adapter), adapter, metadata | {"config": text})
        with pytest.raises(UserError, match="no imvideoedit adapter"):
            load_adapter(adapter, tiny_transformer())


@pytest.mark.parametrize("change", ["missing", "surplus", "renamed"])
def test_tensors_must_match_one_for_one(adapter, change):
    with safe_open(adapter, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(adapter)
    name, weight = state.popitem()
    if change != "missing":
        state[name + "x"] = weight
    if change == "surplus":
        state[name] = weight.clone()
    save_file(state, adapter, metadata)
    with pytest.raises(UserError, match="does not fit its own settings: 1 tensors .*zero_out"):
        load_adapter(adapter, tiny_transformer())


@pytest.mark.parametrize("place", ["header", "tensors"])
def test_damage_that_leaves_a_good_file_is_noticed(tmp_path, place):
    path = tmp_path / "adapter.safetensors"
    saved(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"rank") + 8 if place == "header" else len(data) - 2
    assert place == "tensors" or data[at : at + 1] == b"4"
    data[at] ^= 1
    path.write_bytes(data)
    before = {name: tensor.clone() for name, tensor in tiny_transformer().state_dict().items()}
    transformer = tiny_transformer()
    with pytest.raises(UserError, match=f"is damaged: its {place} .* not th.* written"):
        load_adapter(path, transformer)
    assert transformer.state_dict().keys() == before.keys()


def test_a_file_without_checksums_loads_as_before(adapter):
    header = read_header(adapter)
    assert "checks" not in header.training
    load_adapter(adapter, tiny_transformer())
    state = load_file(adapter)
    state[max(state)] += 1
    with safe_open(adapter, framework="pt") as file:
        save_file(state, adapter, file.metadata())
    load_adapter(adapter, tiny_transformer())
