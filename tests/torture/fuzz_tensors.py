"""Mutants of safetensors and of pickled tensors: adapters, LoRAs, shards, folders of weights."""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest import mock

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save

from imvideoedit.common.tensor_file import TensorFile, read_pickled
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.lora_file import lora_hash
from imvideoedit.methods.adapter_file import adapter_hash, load_adapter, warm_start
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.identity import parameter_hash
from tests.conftest import tiny_transformer
from tests.test_adapter_file import rewrite, saved
from tests.test_foreign_weights import lora
from tests.torture.fuzzing import Target, fuzz
from tests.torture.mutants import damaged_bytes, damaged_json_file
from tests.torture.table import Row
from tests.torture.tensor_mutants import damaged_metadata, damaged_safetensors


def run(scale: float, planted: bool) -> Iterator[Row]:
    """Planted: values that are not finite are not noticed."""
    with tempfile.TemporaryDirectory() as work:
        made = list(targets(Path(work)))
        if not planted:
            yield from fuzz("fuzz_tensors", made, scale)
            return
        with mock.patch("imvideoedit.common.tensor_file.is_finite", lambda tensor: True):
            # From the good file alone: mutants of mutants are mostly refused for something else.
            yield from fuzz("fuzz_tensors", [replace(made[0], grows=False)], max(scale, 0.3))


def targets(work: Path) -> Iterator[Target]:
    path = work / "adapter.safetensors"
    saved(path)
    rewrite(path)  # without checksums, which would stop damaged ones early
    adapter = path.read_bytes()
    loras = [_saved(*lora(Random(seed))) for seed in range(8)]
    model = _Model()
    yield Target("tensors", 1500, path.name, [loras[0]], damaged_safetensors, _finite, guided=False)
    yield Target("adapters", 1000, path.name, [adapter], damaged_safetensors, model.adapts)
    yield Target("adapters to start from", 300, path.name, [adapter], damaged_safetensors, model.starts)
    yield Target("LoRAs", 1500, "lora.safetensors", loras, damaged_safetensors, model.fuses)
    described = [each for each in loras if b"__metadata__" in each]
    yield Target("LoRAs' metadata", 1000, "lora.safetensors", described, damaged_metadata, model.fuses)
    config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 12, "alpha_pattern": {"to_k": 2}}).encode()
    folder = work / "peft"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(next(each for each in loras if each not in described))
    beside = model.beside("adapter_model.safetensors")
    yield Target("LoRAs' configs beside", 400, "adapter_config.json", [config], damaged_json_file, beside, folder)
    pickled = [_pickled({"a": torch.ones(3)}), _pickled({"params": {"b": torch.arange(4.0)}})]
    yield Target("pickled tensors", 600, "x.pth", pickled, damaged_bytes, lambda path: read_pickled(path, "get it"))
    yield from _weights(work / "wan")


def _weights(folder: Path) -> Iterator[Target]:
    """A diffusers folder's transformer: its weights and its config."""
    torch.manual_seed(0)
    (folder / "transformer").mkdir(parents=True)
    tiny_transformer().save_pretrained(folder / "transformer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    weights = "transformer/diffusion_pytorch_model.safetensors"
    good = (folder / weights).read_bytes()
    yield Target("weights folders", 200, weights, [good], damaged_safetensors, _loads, folder, guided=False)
    config = (folder / "transformer/config.json").read_bytes()
    name = "transformer/config.json"
    yield Target("weights' configs", 200, name, [config], damaged_json_file, _loads, folder, guided=False)


def _loads(path: Path) -> None:
    folder = path.parent.parent
    backbone = load_backbone(str(folder), parts=[], device="cpu")
    assert all(tensor.isfinite().all() for tensor in backbone.transformer.parameters()), "weights that are not finite"


def _finite(path: Path) -> None:
    for name, tensor in TensorFile(path).tensors().items():
        wide = tensor if tensor.is_complex() else tensor.double()
        assert name.isprintable() and wide.isfinite().all(), f"{name} is not finite"


def _saved(state: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in state.items()}, metadata or None)


def _pickled(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


class _Model:
    """A tiny transformer that files are loaded into; it must be as before where one is refused."""

    def __init__(self) -> None:
        self.transformer: WanTransformer3DModel = tiny_transformer()
        self.hash = parameter_hash(self.transformer)
        self.before = {name: tensor.clone() for name, tensor in self.transformer.named_parameters()}
        self.names = list(self.transformer.state_dict())

    def adapts(self, path: Path) -> None:
        try:
            method = load_adapter(path, self.transformer, backbone_hash=self.hash)
            assert all(tensor.isfinite().all() for tensor in method.state_dict().values())
            method.uninstall()
            adapter_hash(path)
        finally:
            self._unchanged()

    def starts(self, path: Path) -> None:
        from imvideoedit.methods.predict_update import PredictUpdate

        method = PredictUpdate(adapter="lora", rank=4)
        method.install(self.transformer)
        try:
            warm_start(method, path, self.hash)
            assert all(tensor.isfinite().all() for tensor in method.state_dict().values())
        finally:
            method.uninstall()
            self._unchanged()

    def fuses(self, path: Path) -> None:
        try:
            lora_hash(path)
            fuse_lora(self.transformer, path)
            infinite = [name for name, each in self.transformer.named_parameters() if not each.isfinite().all()]
            self.transformer.load_state_dict(self.before, strict=False)
            assert not infinite, f"{infinite} are not finite"
        finally:
            self._unchanged()

    def beside(self, name: str) -> Callable[[Path], None]:
        return lambda path: self.fuses(path.with_name(name))

    def _unchanged(self) -> None:
        assert list(self.transformer.state_dict()) == self.names, "the model has other parts than before"
        for name, tensor in self.transformer.named_parameters():
            assert tensor.equal(self.before[name]), f"{name} was changed"
