"""Whether two transformers are kin: one architecture, and weights that are alike, as of a finetune or in fewer bits.

An adapter works in kin of the model that it was trained in, less well; in any other it makes noise.
"""

import base64
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from imvideoedit.layers.quantized import full_weight

# What decides on the shapes, and on what is computed with them.
ARCHITECTURE = (
    *("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim", "in_channels", "out_channels"),
    *("patch_size", "text_dim", "freq_dim", "image_dim", "added_kv_proj_dim", "cross_attn_norm", "qk_norm"),
)
SAMPLED = 32  # values of each block
ALIKE = 0.8  # cosine from which weights are kin: 2 bits leave 0.9, and independent ones are at 0


def architecture(transformer: WanTransformer3DModel) -> dict[str, Any]:
    """A transformer's settings, JSON-able."""
    own: Any = transformer.config
    return {name: list(value) if isinstance(value := own[name], tuple) else value for name in ARCHITECTURE}


def sketch(transformer: WanTransformer3DModel) -> str:
    """Some values of each block's query map, in half precision, as text."""
    blocks: list[Any] = list(transformer.blocks)
    values = [_some(full_weight(block.attn1.to_q)) for block in blocks]
    return base64.b64encode(np.stack(values).tobytes()).decode()


def likeness(sketch_a: str, sketch_b: str) -> float:
    """Mean cosine of the blocks of two sketches of one architecture, at most 1; 0 where one is none or damaged."""
    try:
        raw = [base64.b64decode(each, validate=True) for each in (sketch_a, sketch_b)]
        a, b = (np.frombuffer(each, np.float16).astype(np.float64) for each in raw)
    except ValueError:
        return 0.0
    if a.size != b.size or a.size % SAMPLED or not a.size:
        return 0.0
    a, b = a.reshape(-1, SAMPLED), b.reshape(-1, SAMPLED)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(lengths, 1e-12)))


def _some(weight: torch.Tensor) -> np.ndarray:
    """``SAMPLED`` values at even distances, of as many columns, in half precision."""
    flat = weight.reshape(-1)
    places = torch.arange(SAMPLED, device=flat.device) * (len(flat) // SAMPLED | 1) % len(flat)
    return flat[places].float().cpu().numpy().astype(np.float16)
