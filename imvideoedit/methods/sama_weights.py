"""``python -m imvideoedit.methods.sama_weights FILE … --output ADAPTER``: released SAMA weights as an adapter file.

The files hold a whole transformer by Wan's own names, with ``segment_embedding``, ``siglip_feat_mlp`` and
``semantic_head``, as https://huggingface.co/syxbb/SAMA-14B does for Wan2.1 T2V 14B.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from torch import Tensor

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.tensor_file import TensorFile, misfit
from imvideoedit.common.terminal import say
from imvideoedit.methods.adapter_file import save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.sama import Sama
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.context import block_dtype
from imvideoedit.wan.locations import WAN_14B_HUB

PARTS = {"segment_embedding.": "types.", "siglip_feat_mlp.": "project.", "semantic_head.": "head."}
WANS_OWN = "self_attn"  # in the names of Wan's own code, and not in diffusers'
SAMPLER = {"steps": 50, "guidance": 5.0, "shift": 5.0}  # of the released inference


def named_as_here(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors by the names that :class:`Sama` has for them; the transformer's may have diffusers' names."""
    found, backbone = {}, {}
    for name, tensor in released.items():
        part = next((part for part in PARTS if name.startswith(part)), None)
        if part is None:
            backbone[name] = tensor
        else:
            found[PARTS[part] + name.removeprefix(part)] = tensor
    if any(WANS_OWN in name for name in backbone):
        backbone = convert_wan_transformer_to_diffusers(backbone)
    return found | {f"backbone.{name}": tensor for name, tensor in backbone.items()}


def import_weights(files: Sequence[Path], backbone: Backbone, output: Path, prefix: str) -> None:
    """Write an adapter of released weights.

    Args:
        files: safetensors; together they hold all tensors.
        prefix: before each text of an edit.

    Raises:
        UserError: a file is damaged, tensors are missing or of another size, or two files hold one.
    """
    released: dict[str, Tensor] = {}
    for file in files:
        tensors = TensorFile(file, "file of weights").tensors()
        if twice := released.keys() & tensors.keys():
            raise UserError(f"{file} holds {min(twice)}, as a file before it does; give each part of the weights once")
        released |= tensors
    state = named_as_here(released)
    identity, transformer = backbone.parameter_hash(), backbone.transformer
    method = Sama(sem_rope="zero", prefix=prefix, **_widths(state))
    method.install(transformer, block_dtype(transformer))
    own = method.state_dict()
    if unused := state.keys() - own.keys():
        say(f"not used: {len(unused)} tensors that SAMA does not have (as {min(unused)})")
    state = {name: tensor.to(own[name].dtype) for name, tensor in state.items() if name in own}
    if wrong := misfit(own, state):
        raise UserError(f"these weights do not fit {backbone.name}: {wrong}; give the backbone they were made from")
    header = AdapterHeader.describe(method, backbone, {"sampler": SAMPLER}, identity)
    save_adapter(method, output, header, state)


def _widths(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Widths of SigLIP's features and of the layer behind them, which the backbone does not decide."""
    weight = state.get("project.fc1.weight")
    return {} if weight is None or weight.ndim != 2 else {"hidden": weight.shape[0], "width": weight.shape[1]}


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.methods.sama_weights", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="safetensors of the released weights")
    parser.add_argument("--backbone", default=WAN_14B_HUB, help=f"that they were made from (default: {WAN_14B_HUB})")
    parser.add_argument("--output", type=Path, required=True, help="adapter file to write, as large as the weights")
    parser.add_argument("--prefix", default="[Video edit]", help="before each text of an edit (default: [Video edit])")
    given = parser.parse_args(argv)
    backbone = load_backbone(given.backbone, device="cpu", dtype=torch.bfloat16, parts=())
    import_weights(given.files, backbone, given.output, given.prefix)
    print(f"written: {given.output}")


if __name__ == "__main__":
    main()
