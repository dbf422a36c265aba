"""LoRA files as people have them: all keys of each convention are used, to the same weights; what is not is named."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from imvideoedit.common.errors import Note, UserError
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.video.reader import write_video
from tests.conftest import tiny_transformer
from tests.processes import run

RANK, ALPHA = 3, 1.5
IN_BLOCKS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
ORIGINAL = {f"blocks.{n}.{ours}": f"blocks.{n}.{theirs}" for n in (0, 1) for ours, theirs in IN_BLOCKS.items()} | {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
"""Names of the original model's linear maps by diffusers', as its own conversion script lists them."""


def joined(name):
    return name.replace(".", "_")


# Of each convention: the name of a map from diffusers' and the original model's, the words for A and B, where alpha is.
CONVENTIONS = {
    "diffusers": (lambda d, o: f"transformer.{d}", ("lora_A.weight", "lora_B.weight"), "lora_adapter_metadata"),
    "peft": (lambda d, o: f"base_model.model.{d}", ("lora_A.weight", "lora_B.weight"), "beside"),
    "diffsynth": (lambda d, o: o, ("lora_A.default.weight", "lora_B.default.weight"), "in B"),
    "diffsynth, whole pipeline": (
        lambda d, o: f"pipe.dit.{o}",
        ("lora_A.default.weight", "lora_B.default.weight"),
        "in B",
    ),
    "comfyui": (lambda d, o: f"diffusion_model.{o}", ("lora_A.weight", "lora_B.weight"), "alpha"),
    "comfyui without weight": (lambda d, o: f"diffusion_model.{o}", ("lora_A", "lora_B"), "alpha"),
    "lightx2v": (lambda d, o: f"diffusion_model.{o}", ("lora_down.weight", "lora_up.weight"), "in B"),
    "original checkpoint": (
        lambda d, o: f"model.diffusion_model.{o}",
        ("lora_down.weight", "lora_up.weight"),
        "ss_network_alpha",
    ),
    "kohya, musubi": (lambda d, o: f"lora_unet_{joined(o)}", ("lora_down.weight", "lora_up.weight"), "alpha"),
    "musubi with diffusers' names": (
        lambda d, o: f"lora_unet_{joined(d)}",
        ("lora_down.weight", "lora_up.weight"),
        "alpha",
    ),
    "videox-fun": (lambda d, o: f"lora_unet__{joined(o)}", ("lora_down.weight", "lora_up.weight"), "alpha"),
    "lycoris": (lambda d, o: f"lycoris_{joined(d)}", ("lora_down.weight", "lora_up.weight"), "alpha"),
    "differences": (lambda d, o: f"diffusion_model.{o}", None, "in B"),
}


def pairs():
    """A pair (A, B) of each map."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: weight.shape for name, weight in tiny_transformer().named_parameters()}
    return {
        name: (
            torch.randn(RANK, shapes[f"{name}.weight"][1], generator=generator),
            torch.randn(shapes[f"{name}.weight"][0], RANK, generator=generator),
        )
        for name in ORIGINAL
    }


def write(convention, folder):
    """A file of that convention; its path, and its number of keys."""
    named, words, place = CONVENTIONS[convention]
    path = folder / ("adapter_model.safetensors" if place == "beside" else "lora.safetensors")
    tensors, metadata = {}, {"format": "pt"}
    for name, (down, up) in pairs().items():
        key = named(name, ORIGINAL[name])
        if words is None:
            tensors[f"{key}.diff"] = ALPHA / RANK * up @ down
            continue
        tensors |= {f"{key}.{words[0]}": down, f"{key}.{words[1]}": up * (ALPHA / RANK if place == "in B" else 1)}
        if place == "alpha":
            tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    config = {"r": RANK, "lora_alpha": ALPHA}
    if place == "beside":
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    elif place == "lora_adapter_metadata":
        metadata[place] = json.dumps({f"transformer.{key}": value for key, value in config.items()})
    elif place == "ss_network_alpha":
        metadata[place] = str(ALPHA)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path, len(tensors)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_convention_adds_the_same_and_all_of_its_keys_are_used(convention, tmp_path):
    path, count = write(convention, tmp_path)
    transformer = tiny_transformer()
    wanted = {name: weight.clone() for name, weight in transformer.named_parameters()}
    for name, (down, up) in pairs().items():
        wanted[f"{name}.weight"] += ALPHA / RANK * up @ down
    with pytest.warns(Note) as notes:
        fuse_lora(transformer, path)
    assert [str(note.message) for note in notes] == [f"{count} of {count} keys of {path} are used"]
    for name, weight in transformer.named_parameters():
        torch.testing.assert_close(weight, wanted[name], rtol=1e-6, atol=1e-5)


def pair(place, width=24, down="lora_A.weight", up="lora_B.weight"):
    return {f"{place}.{down}": torch.ones(2, width), f"{place}.{up}": torch.ones(width, 2)}


def noted(tensors, path, transformer):
    save_file(tensors, path)
    with pytest.warns(Note) as notes:
        fuse_lora(transformer, path)
    (note,) = notes
    assert "\n" not in str(note.message)
    return str(note.message)


def test_a_file_with_half_unknown_keys_says_so(tmp_path):
    path, transformer = tmp_path / "half.safetensors", tiny_transformer()
    before = {name: weight.clone() for name, weight in transformer.named_parameters()}
    half = (
        pair("diffusion_model.blocks.0.self_attn.q")
        | pair("diffusion_model.blocks.7.self_attn.q")  # of a deeper model
        | pair("diffusion_model.blocks.8.self_attn.q")
        | pair("lora_te_text_model_layers_0_fc1", down="lora_down.weight", up="lora_up.weight")
        | pair("transformer_2.blocks.0.attn1.to_q")
        | {"diffusion_model.blocks.0.self_attn.k.diff_b": torch.ones(24)}
        | {"blocks.0.self_attn.q.weight": torch.ones(24, 24)}
    )
    assert noted(half, path, transformer) == (
        f"3 of 12 keys of {path} are used, the others are not; 8 of weights that the backbone lacks: "
        "diffusion_model.blocks.N.self_attn.q.lora_A.weight (2), "
        "diffusion_model.blocks.N.self_attn.q.lora_B.weight (2), "
        "lora_te_text_model_layers_0_fc1.lora_down.weight, lora_te_text_model_layers_0_fc1.lora_up.weight, "
        "transformer_2.blocks.N.attn1.to_q.lora_A.weight, transformer_2.blocks.N.attn1.to_q.lora_B.weight; "
        "1 of no LoRA: blocks.N.self_attn.q.weight"
    )
    for name, weight in transformer.named_parameters():
        gained = {"blocks.0.attn1.to_q.weight": 2.0, "blocks.0.attn1.to_k.bias": 1.0}.get(name, 0.0)
        torch.testing.assert_close(weight, before[name] + gained)


@pytest.mark.parametrize("joint", [False, True], ids=["dotted", "underscored"])
def test_layers_of_image_to_video_models_are_used_there_and_named_elsewhere(tmp_path, joint):
    path, words = tmp_path / "lora.safetensors", ("lora_down.weight", "lora_up.weight")
    places = ["blocks.1.self_attn.v", "blocks.0.cross_attn.k_img", "blocks.1.cross_attn.v_img", "img_emb.proj.1"]
    places = [f"lora_unet_{joined(place)}" if joint else f"diffusion_model.{place}" for place in places]
    tensors = {key: tensor for place in places for key, tensor in pair(place, 24, *words).items()}
    images = {"image_dim": 24, "added_kv_proj_dim": 24}
    both = tiny_transformer(**images)
    own = {name: weight.clone() for name, weight in both.named_parameters()}
    assert noted(tensors, path, both) == f"8 of 8 keys of {path} are used"
    changed = {name for name, weight in both.named_parameters() if not torch.equal(weight, own[name])}
    assert changed == {
        "blocks.1.attn1.to_v.weight",
        "blocks.0.attn2.add_k_proj.weight",
        "blocks.1.attn2.add_v_proj.weight",
        "condition_embedder.image_embedder.ff.net.0.proj.weight",
    }
    said = noted(tensors, path, tiny_transformer())
    assert said.startswith(f"2 of 8 keys of {path} are used, the others are not; 6 of image-to-video models: ")
    assert all(word in said for word in ("k_img", "v_img", joined("img_emb") if joint else "img_emb.proj"))


def test_differences_of_norms_and_modulations_in_any_words(tmp_path):
    own = dict(tiny_transformer().named_parameters())
    gained = {name: torch.randn(own[name].shape) for name in (
        "blocks.0.norm2.weight", "blocks.0.norm2.bias", "blocks.1.attn1.norm_k.weight",
        "blocks.0.scale_shift_table", "scale_shift_table",
    )}  # fmt: skip
    keys = dict(zip(gained, (
        "lycoris_blocks_0_norm3.w_norm", "lycoris_blocks_0_norm3.b_norm",
        "diffusion_model.blocks.1.self_attn.norm_k.diff", "blocks.0.diff_m", "head.modulation.diff",
    ), strict=True))  # fmt: skip
    transformer = tiny_transformer()
    tensors = {keys[name]: tensor for name, tensor in gained.items()}
    assert noted(tensors, tmp_path / "lora.safetensors", transformer).startswith("5 of 5 keys")
    for name, weight in transformer.named_parameters():
        torch.testing.assert_close(weight, own[name] + gained.get(name, 0.0))


@pytest.mark.parametrize("place", ["lora_unet_down_blocks_0_attentions_0_proj_in", "transformer.single_blocks.0.to_q"])
def test_a_file_whose_keys_fit_nothing_is_an_error(tmp_path, place):
    save_file(pair(place), tmp_path / "other.safetensors")
    transformer = tiny_transformer()
    with pytest.raises(UserError, match="none of its 2 keys changes a weight of this backbone") as error:
        fuse_lora(transformer, tmp_path / "other.safetensors")
    assert "lora_A" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_the_command_says_what_it_used_or_ends_with_one_line(tmp_path):
    write_video(tmp_path / "in.mp4", np.full((2, 64, 64, 3), 90, np.uint8), 12)
    save_file(pair("lora_unet_down_blocks_0_proj_in"), tmp_path / "other.safetensors")
    save_file(
        {"diffusion_model.head.head.diff_b": torch.full((64,), 0.01)} | pair("diffusion_model.img_emb.proj.1"),
        tmp_path / "half.safetensors",
    )
    given = ("imvideoedit.edit", "in.mp4", "turn it into noir style", "--steps", "1", "--lora")
    done = run(*given, "other.safetensors", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "other.safetensors: none of its 2 keys changes a weight" in done.stderr
    done = run(*given, "half.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "half.safetensors" in line]
    assert line.startswith("note: 1 of 3 keys of half.safetensors are used, the others are not; 2 of image-to-video")
