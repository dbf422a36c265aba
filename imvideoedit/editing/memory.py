"""What an edit needs of a device's memory, by part, from shapes alone; and how much there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.layers.quantized import stored_bytes
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import BlockBytes
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.forward import pass_bytes
from imvideoedit.wan.quantized import goes_in_blocks
from imvideoedit.wan.streaming_vae import coding_bytes
from imvideoedit.wan.tiled_vae import tile_area

GIB = 2**30
SHARE = 0.85  # of the free memory that may be planned for


@dataclass(frozen=True)
class Needs:
    """Bytes of an edit by part.

    Attributes:
        weights: of each part of the backbone, the adapter's with the transformer's; and of the method's ``reader``,
            which is on the device while it reads, beside the others where all are there.
        block: weights of the largest block.
        work: activations of a pass over the longest window.
        features: what is kept of the source in each block, for such a window.
        coding, tile: activations of the autoencoder on a frame, and on a tile of it.
    """

    weights: dict[str, int]
    block: int
    work: int
    features: Sequence[BlockBytes]
    coding: int
    tile: int

    def held(self, level: str) -> int:
        """Weights on the device during a pass."""
        if level == "full":
            return sum(size for name, size in self.weights.items() if name != "reader")
        return self.weights["transformer"] if level == "model" else 2 * self.block

    def of(self, level: str, features: int | None = None) -> int:
        """Peak bytes on the device.

        Args:
            features: kept there of the source; the recorded pairs if None.
        """
        kept = sum(each.recorded for each in self.features) if features is None else features
        denoising = self.held(level) + self.work + kept
        reading = self.weights.get("reader", 0)
        if level == "full":
            return max(denoising, self.held(level) + max(self.coding, reading))
        encoding = self.weights.get("text_encoder", 0) if level == "model" else 0
        return max(denoising, encoding, reading, self.weights.get("vae", 0) + self.autoencoder(level))

    def autoencoder(self, level: str) -> int:
        """Activations of the autoencoder, which takes frames in tiles at the levels that move blocks."""
        return self.tile if level in OFFLOAD_LEVELS[2:] else self.coding

    def describe(self, level: str, features: int) -> str:
        """The peak and its parts, in words."""
        parts = {
            "weights": self.held(level),
            "a pass": self.work,
            "the source": features,
            "the autoencoder": self.autoencoder(level),
        }
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        return f"{self.of(level, features) / GIB:.1f} GiB by estimate ({listed})"


def needs(backbone: Backbone, method: Method, tokens: int, pixels: int) -> Needs:
    """Bytes that an edit needs.

    Args:
        tokens: of the longest window.
        pixels: of a frame.
    """
    transformer: Any = backbone.transformer
    parts = {"transformer": transformer, "vae": backbone.vae, "text_encoder": backbone.text_encoder}
    weights = {name: held_bytes(part) for name, part in parts.items() if part is not None}
    weights["transformer"] += sum(held_bytes(part) for part in method.apart())
    if method.reader is not None:
        weights["reader"] = method.reader.weight_bytes(backbone.dtype)
    work = pass_bytes(transformer, tokens) + method.working_bytes(tokens)
    block = max(held_bytes(block) for block in transformer.blocks)
    if not goes_in_blocks(transformer):
        block = weights["transformer"] // 2  # all of it comes at once, where two blocks would
    vae: Any = backbone.vae
    coding = [0, 0] if vae is None else [coding_bytes(vae, int(area)) for area in (pixels, min(pixels, tile_area(vae)))]
    return Needs(weights, block, work, method.feature_bytes(tokens), *coding)


def held_bytes(module: nn.Module, device: str | None = None) -> int:
    """Bytes of a module's parameters and buffers as they are held; of those on one type of device, if it is given."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(stored_bytes(tensor) for tensor in tensors if device in (None, tensor.device.type))


def free_bytes(device: torch.device) -> int:
    """Memory of a device that can be had: also what this process's allocator keeps without use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
