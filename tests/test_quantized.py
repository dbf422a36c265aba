"""Bases in few bits: loaded by diffusers, edited with and trained on, and what they weigh.

On a CPU: GGUF and torchao's; bitsandbytes' are loaded and run there in spite of diffusers, which asks for a GPU.
"""

import importlib.util

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.memory import needs
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.layers.quantized import full_weight, is_packed, stored_bytes
from imvideoedit.methods.adapter_file import read_header
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.sama import Sama
from imvideoedit.wan import quantizations
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.bases import WAN_14B, meta_transformer
from imvideoedit.wan.forward import denoise
from imvideoedit.wan.identity import parameter_hash
from imvideoedit.wan.quantizations import BITS
from imvideoedit.wan.quantized import is_quantized, weight_bytes
from tests.bases import save_pipeline
from tests.conftest import tiny_batch, tiny_transformer
from tests.pair_folder import write_pairs
from tests.training_runs import train_here

# Widths that are multiples of a block of weights of each form.
SIZES = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 128, "freq_dim": 32}
NEAR = {"gguf": 0.02, "int8_weight_only": 0.02, "fp8_weight_only": 0.06, "nf4": 0.2, "int8": 0.05}
WIDE = 64  # of the model


def wide_transformer(seed: int = 0):
    return tiny_transformer(seed, **SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, wan_folder):
    vae = load_backbone(str(wan_folder), device="cpu", parts=["vae"]).vae
    return save_pipeline(tmp_path_factory.mktemp("wide"), wide_transformer(), vae)


def wans_own_names(transformer) -> dict[str, torch.Tensor]:
    """The tensors by the names of Wan's own code, as ComfyUI's files have them."""
    state = transformer.state_dict()
    own = {}
    for name, tensor in state.items():
        for before, after in (
            ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
            ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
            ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
            ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
            ("condition_embedder.time_proj", "time_projection.1"),
            ("attn1.", "self_attn."), ("attn2.", "cross_attn."), ("to_out.0.", "o."), ("to_q.", "q."),
            ("to_k.", "k."), ("to_v.", "v."), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"),
            ("norm2", "norm3"),
        ):  # fmt: skip
            name = name.replace(before, after)
        if name.endswith("scale_shift_table"):
            name = name.replace("scale_shift_table", "modulation" if name.startswith("blocks") else "head.modulation")
        own[name.replace("proj_out", "head.head")] = tensor.contiguous()
    assert set(convert_wan_transformer_to_diffusers(dict(own))) == set(state)
    return own


def write_gguf(path, transformer, form: str = "Q8_0", prefix: str = "") -> None:
    """As the converters for ComfyUI write it: matrices of blocks quantised, other weights as they are."""
    gguf = pytest.importorskip("gguf")
    writer, kind = gguf.GGUFWriter(path, "wan"), gguf.GGMLQuantizationType[form]
    for name, tensor in wans_own_names(transformer).items():
        values = tensor.float().numpy()
        if name.startswith("blocks") and values.ndim == 2 and name.endswith("weight"):
            writer.add_tensor(prefix + name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(prefix + name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def without_a_gpu(monkeypatch):
    """diffusers' quantizers of bitsandbytes ask for a GPU; the package itself runs on a CPU, too.

    There it has a kernel without gradients for processors with AVX-512, which is left out here.
    """
    modules = pytest.importorskip("bitsandbytes").nn.modules
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    for kind in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(kind, "validate_environment", lambda *args, **kwargs: None)
    from imvideoedit.wan import loading

    def config(name, dtype, device):
        return original(name, dtype, torch.device("cuda"))

    original = loading.quantization_config
    monkeypatch.setattr(loading, "quantization_config", config)


@pytest.fixture(params=["gguf", "int8_weight_only", "fp8_weight_only", "nf4", "int8"])
def how(request, tmp_path):
    """The form, and how a backbone is loaded in it."""
    form = request.param
    if form == "gguf":
        write_gguf(tmp_path / "base.gguf", wide_transformer())
        return form, {"file": str(tmp_path / "base.gguf")}
    pytest.importorskip("torchao" if form.endswith("weight_only") else "bitsandbytes")
    if form in ("nf4", "int8"):
        request.getfixturevalue("without_a_gpu")
    return form, {"quantization": form}


def test_it_computes_nearly_as_the_full_one(folder, how):
    form, options = how
    backbone = load_backbone(str(folder), device="cpu", parts=(), **options)
    linear = backbone.transformer.blocks[0].attn1.to_q
    assert is_quantized(backbone.transformer) and is_packed(linear.weight)
    full = wide_transformer()
    own = full.blocks[0].attn1.to_q.weight
    error = (full_weight(linear).float() - own).norm() / own.norm()
    assert 0 < error < NEAR[form]
    batch = tiny_batch()
    sigma = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        found, expected = (
            denoise(model, batch.source_BCFHW, sigma, batch.text_BTD) for model in (backbone.transformer, full)
        )
    assert 0 < (found - expected).norm() / expected.norm() < 2 * NEAR[form]
    assert backbone.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_it_is_trained_on_and_edited_with(folder, how, adapter, tmp_path, monkeypatch):
    _, options = how
    write_pairs(tmp_path / "pairs", 3)
    overrides = [f"backbone.{name}={value}" for name, value in options.items()]
    more = [f"backbone.name={folder}", f"data.path={tmp_path / 'pairs'}", f"method.adapter={adapter}", *overrides]
    file = train_here(tmp_path, monkeypatch, *more)
    header = read_header(file)
    assert {name: header.backbone[name] for name in options} == options
    assert header.backbone["parameter_hash"] != parameter_hash(wide_transformer())
    pipeline = EditPipeline.from_pretrained(adapter=file, device="cpu")
    assert is_quantized(pipeline.backbone.transformer)
    video = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    edited = pipeline(video, "a red ball", steps=1, guidance=1.0)
    assert edited.frames.shape == video.shape


def test_a_full_adapter_inherits_the_weights_in_full(folder, how):
    backbone = load_backbone(str(folder), device="cpu", parts=(), **how[1])
    method = AlignedUpdate(adapter="full")
    method.install(backbone.transformer)
    copied = method.blocks[0].phi_1.attention.to_q
    assert type(copied) is torch.nn.Linear and copied.weight.requires_grad and copied.weight.dtype == torch.float32
    assert torch.equal(copied.weight, full_weight(backbone.transformer.blocks[0].attn1.to_q).float())
    method.velocity(backbone.transformer, tiny_batch())(tiny_batch().source_BCFHW, torch.rand(2)).sum().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_what_changes_the_weights_is_refused(folder, how, tmp_path):
    backbone = load_backbone(str(folder), device="cpu", parts=(), **how[1])
    width = {"lora_A": torch.ones(1, WIDE), "lora_B": torch.ones(WIDE, 1)}
    pair = {f"transformer.blocks.0.attn1.to_q.{side}.weight": tensor for side, tensor in width.items()}
    save_file(pair, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="which are quantised here"):
        fuse_lora(backbone.transformer, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="this method trains the backbone's weights, which are quantised here"):
        Sama(adapter="full").install(backbone.transformer)


def test_its_hash_is_of_its_files_and_its_form(folder, how, tmp_path):
    form, options = how
    found = {load_backbone(str(folder), device="cpu", parts=(), **options).parameter_hash() for _ in range(2)}
    assert len(found) == 1 and found != {parameter_hash(wide_transformer())}
    if form == "gguf":
        write_gguf(tmp_path / "other.gguf", wide_transformer(1))
        options = {"file": str(tmp_path / "other.gguf")}
        assert load_backbone(str(folder), device="cpu", parts=(), **options).parameter_hash() not in found


@pytest.mark.parametrize("form", ["Q8_0", "Q5_0", "Q4_0", "BF16"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_gguf_of_several_forms_with_wans_own_names(folder, tmp_path, form, prefix):
    write_gguf(tmp_path / "base.gguf", wide_transformer(), form, prefix)
    transformer = load_backbone(str(folder), device="cpu", parts=(), file=str(tmp_path / "base.gguf")).transformer
    expected = wide_transformer().state_dict()
    for name, tensor in transformer.state_dict().items():
        if not is_packed(tensor):
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("names", ["wan", "diffusers", "comfyui"])
def test_a_single_file_of_safetensors_is_the_folder(folder, tmp_path, names):
    full = wide_transformer()
    state = full.state_dict() if names == "diffusers" else wans_own_names(full)
    prefix = "model.diffusion_model." if names == "comfyui" else ""
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "base.safetensors")
    backbone = load_backbone(str(folder), device="cpu", parts=(), file=str(tmp_path / "base.safetensors"))
    assert all(
        torch.equal(tensor, full.state_dict()[name]) for name, tensor in backbone.transformer.state_dict().items()
    )
    assert backbone.parameter_hash() == load_backbone(str(folder), device="cpu", parts=()).parameter_hash()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_file_in_fp8_has_the_values_that_it_stands_for(folder, tmp_path, scaled):
    """As ComfyUI's: a scale beside each matrix where the file is scaled, and weights for its kernels."""
    state, expected = {}, {}
    for name, tensor in wans_own_names(wide_transformer()).items():
        if name.startswith("blocks") and tensor.ndim == 2 and name.endswith(".weight"):
            scale = tensor.abs().max() / 448 if scaled else torch.tensor(1.0)
            eight = (tensor / scale).to(torch.float8_e4m3fn)
            state[name] = eight
            expected[name] = eight.float() * scale
            if scaled:
                state[name.removesuffix(".weight") + ".scale_weight"] = scale
                state[name.removesuffix(".weight") + ".scale_input"] = torch.tensor(1.0)
        else:
            state[name] = expected[name] = tensor
    if scaled:
        state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(state, tmp_path / "base.safetensors")
    transformer = load_backbone(
        str(folder), device="cpu", parts=(), file=str(tmp_path / "base.safetensors")
    ).transformer
    wanted = convert_wan_transformer_to_diffusers(dict(expected))
    for name, tensor in transformer.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-2 if scaled else 0, atol=0)


def test_a_file_of_another_model_is_refused(folder, tmp_path):
    cases = {
        "of another shape": tiny_transformer(0, **SIZES | {"ffn_dim": 96}),
        "lacking": tiny_transformer(0, **SIZES | {"num_layers": 1}),
        "unknown": tiny_transformer(0, **SIZES | {"num_layers": 3}),
    }
    for match, transformer in cases.items():
        save_file({n: t.contiguous() for n, t in transformer.state_dict().items()}, tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=f"is not of backbone .*{match}"):
            load_backbone(str(folder), device="cpu", parts=(), file=str(tmp_path / "other.safetensors"))


def test_files_that_are_none_are_refused_in_one_line(folder, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"pickle")
    (tmp_path / "b.safetensors").write_bytes(b"no safetensors")
    for file, match in (
        ("gone.gguf", "no file"),
        ("a.ckpt", "no .gguf or .safetensors"),
        ("b.safetensors", "complete"),
    ):
        with pytest.raises(UserError, match=match):
            load_backbone(str(folder), device="cpu", parts=(), file=str(tmp_path / file))


def test_a_damaged_gguf_is_refused(folder, tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "base.gguf"
    write_gguf(path, wide_transformer())
    for damage in (path.read_bytes()[:3000], b"GGUF", b"nothing of the kind" * 9):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="is no complete GGUF file"):
            load_backbone(str(folder), device="cpu", parts=(), file=str(path))


def test_unknown_and_doubled_forms_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="choose nf4, int8, int8_weight_only, fp8_weight_only"):
        load_backbone(str(folder), device="cpu", parts=(), quantization="q4")
    (tmp_path / "base.gguf").touch()
    with pytest.raises(UserError, match="is quantised already"):
        load_backbone(str(folder), device="cpu", quantization="nf4", file=str(tmp_path / "base.gguf"))
    (tmp_path / "wan2.2_t2v_Low_Noise_14B_Q4_K_M.gguf").touch()
    with pytest.raises(UserError, match="one of the two experts"):
        load_backbone(str(folder), device="cpu", file=str(tmp_path / "wan2.2_t2v_Low_Noise_14B_Q4_K_M.gguf"))
    with pytest.raises(UserError, match="takes no quantization"):
        load_backbone("nano_image_to_video", device="cpu", quantization="nf4")


@pytest.mark.parametrize(
    ("form", "package"), [("nf4", "bitsandbytes"), ("fp8_weight_only", "torchao"), (".gguf", "gguf")]
)
def test_a_missing_package_is_named_with_the_extra(folder, tmp_path, monkeypatch, form, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        quantizations.importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    (tmp_path / "base.gguf").touch()
    how = {"file": str(tmp_path / "base.gguf")} if form == ".gguf" else {"quantization": form}
    with pytest.raises(UserError, match=rf"needs {package}; install it by pip install 'imvideoedit\[quantized\]'"):
        load_backbone(str(folder), device="cpu", parts=(), **how)


def test_bitsandbytes_without_a_gpu_says_what_to_take(folder):
    pytest.importorskip("bitsandbytes")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="loaded on a GPU alone; take int8_weight_only, or a file of GGUF"):
        load_backbone(str(folder), device="cpu", parts=(), quantization="nf4")


def test_bytes_are_those_of_the_real_sizes():
    transformer = meta_transformer(WAN_14B)
    sizes = {
        name: weight_bytes(transformer, name) / 2**30 for name in (None, "nf4", "int8_weight_only", "Q4_K", "Q8_0")
    }
    assert sizes[None] == pytest.approx(2 * 14_288_491_584 / 2**30)
    assert 7.5 < sizes["nf4"] < 8 and 13.2 < sizes["int8_weight_only"] < 13.8
    assert sizes["Q4_K"] == sizes["nf4"] < sizes["Q8_0"]
    with pytest.raises(UserError, match="there is no quantization 'q9'"):
        weight_bytes(transformer, "q9")


def test_bytes_are_those_of_what_is_loaded(folder, how):
    form, options = how
    if form == "gguf":
        name, wide = "Q8_0", 4
    else:
        name, wide = form, 4
    transformer = load_backbone(str(folder), device="cpu", parts=(), **options).transformer
    linear = transformer.blocks[0].ffn.net[0].proj
    shapes = torch.nn.ModuleDict({"ffn": torch.nn.Linear(linear.in_features, linear.out_features, bias=False)})
    assert weight_bytes(shapes, name, wide) == pytest.approx(bytes_of(linear), rel=0.01)


def bytes_of(linear) -> int:
    """Of a matrix in few bits with its scales."""
    weight = linear.weight
    if type(weight).__name__ == "Params4bit":
        return weight.nbytes + weight.quant_state.absmax.nbytes
    if type(weight).__name__ == "Int8Params":
        return weight.nbytes + (weight.SCB if weight.SCB is not None else linear.state.SCB).nbytes
    return stored_bytes(weight)


def test_blocks_of_bitsandbytes_stay_together(folder, how):
    """Their scales are no parameters, which alone are moved block by block."""
    form, options = how
    backbone = load_backbone(str(folder), device="cpu", **options)
    method = AlignedUpdate(adapter="lora", rank=2)
    method.install(backbone.transformer)
    needed = needs(backbone, method, 8, 0)
    whole = form in ("nf4", "int8")
    assert (2 * needed.block == pytest.approx(needed.weights["transformer"], abs=2)) == whole
    placement = Placement(backbone, method, torch.device("cpu"), "group")
    placement._place("group")
    assert any(part is backbone.transformer for part in placement._swapped) == whole
    batch = tiny_batch()
    with torch.no_grad(), placement.working(backbone.transformer):
        found = method.velocity(backbone.transformer, batch)(batch.source_BCFHW, torch.rand(2))
    assert torch.isfinite(found).all()


def test_the_bits_of_gguf_are_its_librarys():
    gguf = pytest.importorskip("gguf")
    for name in ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"):
        weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert BITS[name] == 8 * size / weights
