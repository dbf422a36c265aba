"""A base that is not the adapter's: kin of it is a warning that names both, any other an error."""

import copy
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.methods import adapter_file
from imvideoedit.methods.adapter_file import load_adapter, save_adapter, warm_start
from imvideoedit.methods.adapter_header import AdapterHeader, read_header
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.kinship import ALIKE, SAMPLED, architecture, likeness, sketch
from tests.conftest import awaken, tiny_transformer


@pytest.fixture
def adapter(wan_folder, tmp_path):
    backbone, method = load_backbone(str(wan_folder), device="cpu", parts=()), AlignedUpdate(adapter="lora", rank=2)
    method.install(backbone.transformer)
    awaken(method)
    save_adapter(method, tmp_path / "a.safetensors", AdapterHeader.describe(method, backbone, {"sampler": {}}))
    return tmp_path / "a.safetensors"


def finetuned(share: float = 0.1):
    """Each weight moved by a share of its matrix's spread."""
    transformer, generator = tiny_transformer(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(share * parameter.std(unbiased=False) * noise)
    return transformer


def test_a_finetune_is_kin_and_both_are_named(adapter, caplog):
    with caplog.at_level(logging.WARNING):
        load_adapter(adapter, finetuned(), backbone_name="my-finetune")
    (record,) = caplog.records
    own = read_header(adapter).backbone["name"]
    assert own in record.getMessage() and "my-finetune" in record.getMessage() and "kin" in record.getMessage()


def test_the_very_base_is_no_matter_for_a_warning(adapter, caplog):
    with caplog.at_level(logging.WARNING):
        load_adapter(adapter, tiny_transformer())
    assert not caplog.records


def test_another_precision_is_kin(adapter, caplog):
    transformer = tiny_transformer().to(torch.float16)
    with caplog.at_level(logging.WARNING):
        load_adapter(adapter, transformer)
    said = [record.getMessage() for record in caplog.records if record.name == adapter_file.__name__]
    assert all("kin" in line for line in said) and len(said) <= 1  # rounding twice need not change a weight


def test_independent_weights_of_one_architecture_are_an_error(adapter):
    with pytest.raises(UserError, match="parameter hash .*; load the backbone it was trained in"):
        load_adapter(adapter, tiny_transformer(seed=1))


@pytest.mark.parametrize("change", [{"num_layers": 3}, {"ffn_dim": 48}, {"in_channels": 8, "out_channels": 8}])
def test_another_architecture_is_an_error_that_says_how(adapter, change):
    (name, value), *_ = change.items()
    with pytest.raises(UserError, match=rf"another architecture \({name} is {value}, not"):
        load_adapter(adapter, tiny_transformer(**change))


def test_a_run_starts_from_an_adapter_of_kin(adapter, caplog):
    method = AlignedUpdate(adapter="lora", rank=2)
    method.install(finetuned())
    before = copy.deepcopy(method.state_dict())
    with caplog.at_level(logging.WARNING):
        warm_start(method, adapter)
    assert "kin" in caplog.text
    assert any(not torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    method.uninstall()
    method.install(tiny_transformer(seed=1))
    with pytest.raises(UserError, match="load the backbone it was trained in"):
        warm_start(method, adapter)


def test_an_edit_names_the_base_it_is_given(adapter, wan_folder, tmp_path, caplog):
    """A file of the transformer's weights alone, in bfloat16, and changed a little."""
    file = tmp_path / "finetune.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in finetuned().state_dict().items()}, file)
    with caplog.at_level(logging.WARNING):
        pipeline = EditPipeline.from_pretrained(str(file), adapter, device="cpu")
    assert "finetune.safetensors" in caplog.text and str(wan_folder) in caplog.text
    assert pipeline.backbone.file == str(file) and pipeline.backbone.vae is not None


def test_files_of_earlier_versions_want_the_very_base(adapter, tmp_path):
    header = read_header(adapter)
    own = {key: header.backbone[key] for key in ("name", "revision", "parameter_hash")}
    method = load_adapter(adapter, tiny_transformer())
    old = AdapterHeader(header.method, header.config, own, header.training, header.inputs)
    save_adapter(method, tmp_path / "old.safetensors", old)
    load_adapter(tmp_path / "old.safetensors", tiny_transformer())
    with pytest.raises(UserError, match="load the backbone it was trained in"):
        load_adapter(tmp_path / "old.safetensors", finetuned())


def test_a_sketch_tells_kin_from_others():
    own = sketch(tiny_transformer())
    assert likeness(own, own) == pytest.approx(1)
    assert likeness(own, sketch(finetuned(0.3))) > 0.9 > ALIKE
    assert abs(likeness(own, sketch(tiny_transformer(seed=1)))) < 0.5
    assert likeness(own, sketch(tiny_transformer(num_layers=3))) == 0
    assert likeness(own, "no base64!") == likeness(own, "") == likeness("", "") == 0
    assert len(own) < 4 * SAMPLED * 2 * 2  # bytes of two blocks, as text


def test_an_architecture_is_told_as_json_keeps_it(adapter):
    assert read_header(adapter).backbone["architecture"] == architecture(tiny_transformer())
    assert load_file(adapter)  # plain safetensors still
