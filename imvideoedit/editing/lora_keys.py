"""The names in LoRA files: which weight of diffusers' Wan transformer each belongs to, and which part it is of.

Trainers write the names of diffusers or of the original model, with a prefix of theirs, or with underscores for dots:

| key of block 0's query | written by |
|---|---|
| `transformer.blocks.0.attn1.to_q.lora_A.weight` | diffusers, finetrainers |
| `base_model.model.blocks.0.attn1.to_q.lora_A.weight` | PEFT |
| `blocks.0.self_attn.q.lora_A.default.weight`, also after `pipe.dit.` | DiffSynth |
| `diffusion_model.blocks.0.self_attn.q.lora_A.weight`, or `lora_down` | ComfyUI, CausVid, LightX2V, ai-toolkit |
| `lora_unet_blocks_0_self_attn_q.lora_down.weight` | kohya's scripts, musubi-tuner |
| `lora_unet__blocks_0_self_attn_q.lora_down.weight` | VideoX-Fun |
| `lycoris_blocks_0_attn1_to_q.lora_down.weight` | LyCORIS, SimpleTuner |
| `diffusion_model.blocks.0.self_attn.q.diff`, `.diff_b`, `blocks.0.diff_m` | differences of weight, bias, modulation |
"""

import re
from collections.abc import Iterable
from enum import Enum

from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers


class Part(Enum):
    """What a tensor is to its place; the value is a pattern of the end of its name.

    PEFT puts an adapter's name, as in ``.lora_A.default.weight``; LyCORIS has its own words for differences of norms.
    """

    DOWN = r"\.lora_(?:A|down)(?:(?:\.(?!weight$)[^.]+)?\.weight)?"
    UP = r"\.lora_(?:B|up)(?:(?:\.(?!weight$)[^.]+)?\.weight)?"
    UP_BIAS = r"\.lora_(?:B|up)(?:\.(?!bias$)[^.]+)?\.bias"
    ALPHA = r"\.alpha"
    WEIGHT = r"\.(?:diff|w_norm)"
    BIAS = r"\.(?:diff_b|b_norm)"
    MAGNITUDE = r"\.(?:dora_scale|lora_magnitude_vector(?:\..+)?|lora_magnitude)"
    # Of other formulas than a product of two: used without these, a file would do something else than it says.
    OTHER = r"\.(?:hada_\w+|lokr_\w+|lora_mid\.weight|oft_\w+|rescale|vera_lambda_\w+|set_weight|reshape_weight)"


_PREFIX = re.compile(r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|pipe\.dit\.|transformer\.)+")
_JOINED = re.compile("(?:lora_unet|lycoris|lora_transformer)_+")
_ORIGINAL = re.compile(
    r"self_attn|cross_attn|ffn[._]\d|(?:time|text)_embedding|time_projection|head[._]head|img_emb|modulation"
)
_NAMED = 6  # kinds of keys that a message names
_IMAGES = re.compile(r"[kv]_img|img_emb|add_[kv]_proj|norm_added|image_embedder")


def split(keys: Iterable[str]) -> tuple[dict[str, tuple[str, Part]], list[str]]:
    """Place and part of each key, the place by diffusers' name of the module; and the keys that are neither.

    Whether names are the original model's is decided for a file as a whole, since both models have a ``norm2``.
    """
    plain = {key: re.sub(r"\.diff_m$", ".modulation.diff", key) for key in keys}
    original = any(_ORIGINAL.search(key) for key in plain.values())
    found, unknown = {}, []
    for key, name in plain.items():
        ended = ((re.search(part.value + "$", name), part) for part in Part)
        match, part = next(((match, part) for match, part in ended if match), (None, None))
        if match is None or part is None:
            unknown.append(key)
        else:
            found[key] = (_place(name[: match.start()], original), part)
    return found, unknown


def kinds(keys: Iterable[str]) -> str:
    """Keys in short: one that differs in its block alone stands for all such, ``N`` for the block; with how many."""
    counts: dict[str, int] = {}
    for key in keys:
        name = re.sub(r"(?<=blocks[._])\d+", "N", key)
        counts[name] = counts.get(name, 0) + 1
    named = [name + (f" ({count})" if count > 1 else "") for name, count in list(counts.items())[:_NAMED]]
    return ", ".join(named) + (f" and {len(counts) - _NAMED} others" if len(counts) > _NAMED else "")


def is_of_images(key: str) -> bool:
    """Whether a key is of the layers that image-to-video models alone have."""
    return _IMAGES.search(key) is not None


def _place(name: str, original: bool) -> str:
    joined = _JOINED.match(name)
    bare = _dotted(name[joined.end() :]) if joined else _PREFIX.sub("", name)
    if not original or "motion_encoder" in bare or "face_adapter" in bare:  # of Wan-Animate, whose values are split
        return bare
    # It renames the keys of weights and takes any values.
    return next(iter(convert_wan_transformer_to_diffusers({f"{bare}.weight": None}))).removesuffix(".weight")


# From names joined by underscores, in this order.
_DOTS = (
    (r"^blocks_(\d+)_", r"blocks.\1."),
    (r"(?<=\d\.)(self_attn|cross_attn|attn\d|ffn)_", r"\1."),
    (r"^(time_embedding|text_embedding|time_projection|head)_", r"\1."),
    (r"^img_emb_proj_", "img_emb.proj."),
    (r"^condition_embedder_((?:time|text|image)_embedder)_", r"condition_embedder.\1."),
    (r"(?<=image_embedder\.)ff_", "ff."),
    (r"^condition_embedder_time_proj$", "condition_embedder.time_proj"),
    (r"\bnet_(\d)", r"net.\1"),
    (r"\bnet\.0_proj$", "net.0.proj"),
    (r"to_out_0$", "to_out.0"),
)


def _dotted(name: str) -> str:
    """``blocks.0.self_attn.q`` of ``blocks_0_self_attn_q``."""
    for joined, dotted in _DOTS:
        name = re.sub(joined, dotted, name)
    return name
