"""LoRA files and adapters with random damage: each is used, or refused in one line, and then nothing has changed."""

import json
import math
import random
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.conditions import decode
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.methods.adapter_file import adapter_hash, load_adapter, read_state, save_adapter, warm_start
from tests.conftest import TINY_TRANSFORMER, tiny_transformer
from tests.test_adapter_file import rewrite, saved
from tests.torture.mutants import damaged_text
from tests.torture.tensor_mutants import damaged_tensors

LORAS, HEADERS, BYTES = 240, 160, 60  # random files of each kind


def lora(rng):
    """A good file of one of the forms."""
    place = rng.choice(["transformer.blocks.{}.attn1.to_q", "diffusion_model.blocks.{}.cross_attn.o",
                        "lora_unet_blocks_{}_ffn_0", "base_model.model.blocks.{}.self_attn.k"])  # fmt: skip
    width = TINY_TRANSFORMER["ffn_dim"] if "ffn" in place else 24
    down, up = rng.choice([("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")])
    state = {}
    for block in range(2):
        own = place.format(block)
        state |= {f"{own}.{down}.weight": torch.randn(4, 24), f"{own}.{up}.weight": torch.randn(width, 4)}
        state |= {f"{own}.alpha": torch.tensor(2.0)} if rng.random() < 0.5 else {}
        state |= {f"{own}.diff_b": torch.randn(width)} if rng.random() < 0.3 else {}
    config = {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.alpha_pattern": {"to_k": 2}}
    return state, rng.choice([{}, {"lora_adapter_metadata": json.dumps(config)}, {"ss_network_alpha": "2"}])


def one_line(call):
    """Whether a call succeeds; it fails by a UserError of one line only."""
    try:
        call()
    except UserError as error:
        assert "\n" not in str(error)
        str(error).encode()
        return False
    return True


@pytest.fixture(scope="module")
def transformer():
    return tiny_transformer()


@pytest.mark.parametrize("seed", range(12))
def test_damaged_loras_add_finite_values_or_nothing(transformer, tmp_path, seed):
    rng, path, used = random.Random(seed), tmp_path / "lora.safetensors", 0
    torch.manual_seed(seed)
    before = {name: tensor.clone() for name, tensor in transformer.named_parameters()}
    for _ in range(LORAS // 12):
        state, metadata = lora(rng)
        if rng.random() < 0.8:
            state = damaged_tensors(state, rng)
        if metadata and rng.random() < 0.5:
            metadata = {key: damaged_text(value, rng) for key, value in metadata.items()}
        save_file(state, path, metadata)
        if one_line(lambda: fuse_lora(transformer, path)):
            used += 1
            assert all(tensor.isfinite().all() for tensor in transformer.parameters())
            transformer.load_state_dict(before, strict=False)
        assert all(torch.equal(tensor, before[name]) for name, tensor in transformer.named_parameters())
        one_line(lambda: adapter_hash(path))
    assert used  # the good forms among them


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "adapter.safetensors"
    saved(path)
    rewrite(path)  # without checksums, which would stop each damaged file early
    with safe_open(path, framework="pt") as file:
        return path, load_file(path), file.metadata()


@pytest.mark.parametrize("seed", range(8))
def test_damaged_adapters_load_or_leave_the_model_alone(adapter, transformer, tmp_path, seed):
    rng, path = random.Random(seed), tmp_path / "damaged.safetensors"
    names = list(transformer.state_dict())
    for _ in range(HEADERS // 8):
        _, state, metadata = adapter
        metadata = dict(metadata)
        if rng.random() < 0.8:
            entry = rng.choice(sorted(metadata))
            metadata[entry] = damaged_text(metadata[entry], rng)
        else:
            state = damaged_tensors(dict(state), rng)
        save_file(state, path, metadata)
        one_line(lambda: load_adapter(path, transformer).uninstall())
        assert list(transformer.state_dict()) == names


@pytest.mark.parametrize("kind", ["lora", "adapter"])
def test_damaged_bytes_cost_one_line(adapter, transformer, tmp_path, kind):
    rng, path = random.Random(kind), tmp_path / "damaged.safetensors"
    if kind == "lora":
        state, metadata = lora(random.Random(0))
        save_file(state, path, metadata)
    content = (path if kind == "lora" else adapter[0]).read_bytes()
    before = {name: tensor.clone() for name, tensor in transformer.named_parameters()}
    for _ in range(BYTES // 2):
        damaged = bytearray(content[: rng.choice([len(content)] * 3 + [rng.randrange(len(content))])])
        for _ in range(rng.randint(1, 4)):
            if damaged:  # most of them in the header
                damaged[rng.randrange(min(len(damaged), rng.choice([8, 2000, len(content)])))] = rng.randrange(256)
        path.write_bytes(damaged)
        if kind == "lora":
            one_line(lambda: fuse_lora(transformer, path))
            transformer.load_state_dict(before, strict=False)
        else:
            one_line(lambda: load_adapter(path, transformer).uninstall())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_adapter_that_is_not_finite_is_neither_written_nor_read(adapter, transformer, tmp_path, value):
    path, state, metadata = adapter
    name = max(state)
    broken = state | {name: state[name].clone()}
    broken[name].view(-1)[-1] = value
    save_file(broken, tmp_path / "broken.safetensors", metadata)
    method = load_adapter(path, transformer)
    try:
        for read in (read_state, adapter_hash, lambda path: warm_start(method, path)):
            with pytest.raises(UserError, match=f"NaN or infinite values at {name}"):
                read(tmp_path / "broken.safetensors")
        with pytest.raises(UserError, match=f"{name} is NaN or infinite, so .*new.safetensors is not written"):
            save_adapter(method, tmp_path / "new.safetensors", None, broken)
        assert not (tmp_path / "new.safetensors").exists()
    finally:
        method.uninstall()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["latents", "frames"])
def test_an_edit_that_is_not_finite_is_no_video(where, value):
    latents = torch.zeros(1, 3, 5, 2, 2)
    if where == "latents":
        latents[0, 1, 4, 1, 1] = value

    def decoded(parts):
        for number, part in enumerate(parts):
            yield torch.full_like(part, value if where == "frames" and number == 1 else 0.0)

    frames = decode(SimpleNamespace(decode_parts=decoded), latents, 5)
    with pytest.raises(UserError, match=f"the edit's {where} came out as NaN or infinite values"):
        list(frames)
