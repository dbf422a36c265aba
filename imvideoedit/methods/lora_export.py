"""``python -m imvideoedit.methods.lora_export ADAPTER OUTPUT``: an in-context adapter as an ordinary LoRA file.

The file loads into diffusers (``load_lora_weights``), ComfyUI and what else reads a Wan LoRA. A program that applies it
must also put the source's clean tokens behind the target's, as :func:`imvideoedit.methods.in_context.in_context_pass`
does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.methods.adapter_file import read_state
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.in_context import InContext

Keys = Literal["diffusers", "comfyui"]
ORIGINAL = {
    **{
        f"{ours}_{of_ours}": f"{theirs}.{of_theirs}"
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for of_ours, of_theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out_0", "o"))
    },
    "ffn_net_0_proj": "ffn.0",
    "ffn_net_2": "ffn.2",
}
"""Names of the original model's linear maps, by those of diffusers' joined by underscores, as an adapter has them."""
DIFFUSERS = {
    **{f"{name}_{part}": f"{name}.{part}" for name in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v")},
    **{f"{name}_to_out_0": f"{name}.to_out.0" for name in ("attn1", "attn2")},
    "ffn_net_0_proj": "ffn.net.0.proj",
    "ffn_net_2": "ffn.net.2",
}


def as_lora(state: Mapping[str, Tensor], keys: Keys) -> dict[str, Tensor]:
    """The tensors of a LoRA file from an in-context adapter's.

    Args:
        state: ``lora.N.deltas.MAP.down.weight`` and ``up.weight`` for each map of block N.
        keys: ``diffusers`` (``transformer.blocks.N.attn1.to_q.lora_A.weight``), or ``comfyui``
            (``diffusion_model.blocks.N.self_attn.q.lora_A.weight``, with an ``alpha`` that equals the rank: scale 1).
    """
    prefix, names = ("transformer", DIFFUSERS) if keys == "diffusers" else ("diffusion_model", ORIGINAL)
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        _, block, _, linear, side, _ = key.split(".")
        place = f"{prefix}.blocks.{block}.{names[linear]}"
        tensors[f"{place}.lora_{'A' if side == 'down' else 'B'}.weight"] = tensor.contiguous()
        if keys == "comfyui" and side == "down":
            tensors[f"{place}.alpha"] = torch.tensor(float(len(tensor)))
    return tensors


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.methods.lora_export", description=__doc__)
    parser.add_argument("adapter", type=Path, help="trained with method=in_context")
    parser.add_argument("output", type=Path, help="the .safetensors to write")
    parser.add_argument(
        "--keys", choices=("diffusers", "comfyui"), default="diffusers", help="whose names (default: diffusers)"
    )
    given = parser.parse_args(argv)
    header = read_header(given.adapter)
    if header.method != InContext.name:
        raise UserError(
            f"{given.adapter} is an adapter of {header.method}, which is more than low-rank deltas; only those of "
            "in_context are ordinary LoRAs"
        )
    tensors = as_lora(read_state(given.adapter), given.keys)
    with replacing(given.output) as path:
        path.write_bytes(save(tensors, {"format": "pt"}))
    print(f"wrote {given.output} ({len(tensors)} tensors with the keys of {given.keys})")


if __name__ == "__main__":
    main()
