"""The names in LoRA files: which weight of diffusers' Wan transformer each belongs to, and which part it is of.

Trainers write the names of diffusers or of the original model, with a prefix of theirs, or with underscores for dots.
"""

import re
from collections.abc import Iterable
from enum import Enum

from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers


class Part(Enum):
    """What a tensor is to its place; the value is a pattern of the end of its name.

    PEFT puts an adapter's name, as in ``.lora_A.default.weight``.
    """

    DOWN = r"\.lora_(?:A|down)(?:\.(?!weight$)[^.]+)?\.weight"
    UP = r"\.lora_(?:B|up)(?:\.(?!weight$)[^.]+)?\.weight"
    UP_BIAS = r"\.lora_(?:B|up)(?:\.(?!bias$)[^.]+)?\.bias"
    ALPHA = r"\.alpha"
    WEIGHT = r"\.diff"
    BIAS = r"\.diff_b"
    MAGNITUDE = r"\.(?:dora_scale|lora_magnitude_vector(?:\..+)?|lora_magnitude)"


_PREFIX = re.compile(r"^(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_)+")
_ORIGINAL = re.compile(r"self_attn|cross_attn|ffn[._]\d|(?:time|text)_embedding|time_projection|head[._]head|img_emb")


def split(keys: Iterable[str]) -> tuple[dict[str, tuple[str, Part]], list[str]]:
    """Place and part of each key, the place by diffusers' name of the module; and the keys that are neither.

    Whether names are the original model's is decided for a file as a whole, since both models have a ``norm2``.
    """
    keys = list(keys)
    original = any(_ORIGINAL.search(key) for key in keys)
    found, unknown = {}, []
    for key in keys:
        ended = ((re.search(part.value + "$", key), part) for part in Part)
        match, part = next(((match, part) for match, part in ended if match), (None, None))
        if match is None or part is None:
            unknown.append(key)
        else:
            found[key] = (_place(key[: match.start()], original), part)
    return found, unknown


def _place(name: str, original: bool) -> str:
    bare = _PREFIX.sub("", name)
    if name.startswith("lora_unet_"):
        bare = _dotted(bare)
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
    (r"^condition_embedder_((?:time|text)_embedder)_", r"condition_embedder.\1."),
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
