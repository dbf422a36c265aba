"""Which card holds an edit of 81 frames, by base and quantization, and what it takes there: by estimate, without a GPU.

``python -m imvideoedit.benchmark bases``. Memory is what ``--memory auto`` plans by, and the autoencoder's, counted on
fake tensors; time is that of the passes, foretold as by ``gpu_model``. Neither has been measured.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import UMT5Config, UMT5EncoderModel

from imvideoedit.benchmark.cards import CARDS, Card
from imvideoedit.benchmark.gpu_rows import edit_pass
from imvideoedit.benchmark.launches import Count
from imvideoedit.benchmark.whole_model import HALF, of_all_blocks
from imvideoedit.editing.denoiser import windows_of
from imvideoedit.editing.memory import SHARE, Needs, needs
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.offload import LOW_FRAMES, LOW_OVERLAP
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.training.estimate import GIB
from imvideoedit.training.flops import GROUP, Pairs, random_transformer, step_peak
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.bases import WAN_1_3B, WAN_5B, WAN_5B_AUTOENCODER, WAN_14B
from imvideoedit.wan.locations import DEFAULT_SHIFT
from imvideoedit.wan.quantizations import ON_DEVICE
from imvideoedit.wan.quantized import weight_bytes
from imvideoedit.wan.streaming_vae import decode_parts
from imvideoedit.wan.tiled_vae import decoding_tiles

FRAMES = 81
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64}
DRIVER = 0.5 * GIB  # of a card, which nobody else has
PCIE = 12e9  # bytes a second to a card, assumed: what eight lanes of PCIe 4 give
# By GiB of memory; stated dense rates in bfloat16 with sums in float32, as those of the others.
BY_MEMORY = {
    8: Card("4060", 0.272e12, 30.2e12),
    12: Card("4070", 0.504e12, 58.3e12),
    16: Card("4060 Ti", 0.288e12, 44.1e12),
    24: CARDS[-1],
}


@dataclass(frozen=True)
class Base:
    """A base at the size of frames that it is made for."""

    name: str
    config: dict[str, Any]
    height: int
    width: int
    quantizations: tuple[str | None, ...]
    autoencoder: dict[str, Any] = field(default_factory=dict)

    def pairs(self, frames: int) -> Pairs:
        """A window of so many frames."""
        pixels = self.autoencoder.get("scale_factor_spatial", 8)
        return Pairs(1, self.height // pixels, self.width // pixels, frames=(frames - 1) // GROUP + 1, pixels=pixels)


BASES = (
    Base("Wan2.1 1.3B", WAN_1_3B, 480, 832, (None, "fp8_weight_only")),
    Base("Wan2.2 5B", WAN_5B, 704, 1280, (None, "fp8_weight_only", "nf4"), WAN_5B_AUTOENCODER),
    Base("Wan2.1 14B", WAN_14B, 480, 832, (None, "fp8_weight_only", "nf4")),
)


@dataclass(frozen=True)
class Planned:
    """An edit on a card: the offload level, bytes on the device, and seconds of its passes by quality."""

    level: str
    peak: float
    seconds: dict[str, float]


def new_method() -> Method:
    """The one that is planned for."""
    return AlignedUpdate(adapter="lora")


def foretell_bases() -> dict[str, Any]:
    """Print memory and time by base, quantization and card, and return the figures."""
    table = Table(
        "base", "in", "GiB of weights", "decoding", *(f"{size} GB ({c.name})" for size, c in BY_MEMORY.items())
    )
    figures: dict[str, Any] = {}
    for base in BASES:
        counts = {frames: pass_count(base, frames) for frames in (FRAMES, LOW_FRAMES)}
        decoding = {tiled: decoding_bytes(base, tiled) for tiled in (False, True)}
        for quantization in base.quantizations:
            windows = {frames: needs_of(base, quantization, frames) for frames in (FRAMES, LOW_FRAMES)}
            planned = {size: plan(windows, decoding, counts, size) for size in BY_MEMORY}
            weights = windows[FRAMES].weights
            cells = ["does not fit" if each is None else _cell(each) for each in planned.values()]
            told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in weights.items())
            table.add_row(base.name, quantization or "bfloat16", told, _decoding(decoding), *cells)
            found = {str(size): each and vars(each) for size, each in planned.items()}
            figures[f"{base.name} in {quantization or 'bfloat16'}"] = {"weights": weights, "cards": found}
    Console(width=170).print(table)
    return figures


def _decoding(decoding: dict[bool, float]) -> str:
    return f"{decoding[False] / GIB:.1f}, in tiles {decoding[True] / GIB:.1f}"


def _cell(planned: Planned) -> str:
    minutes = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in planned.seconds.items())
    return f"{planned.level} {planned.peak / GIB:.1f} GiB; {minutes}"


def plan(windows: dict[int, Needs], decoding: dict[bool, float], counts: dict[int, Count], size: int) -> Planned | None:
    """The first offload level that fits a card, and the time there; None if none fits.

    Args:
        windows: what a window of each length needs.
        decoding: bytes of the autoencoder's work on whole frames, and in tiles.
        counts: of a pass over a window of each length.
        size: GiB of the card.
    """
    for level in OFFLOAD_LEVELS:
        frames = LOW_FRAMES if level == OFFLOAD_LEVELS[-1] else FRAMES
        needed = windows[frames]
        vae = needed.weights["vae"] if level != "full" else sum(needed.weights.values())
        peak = max(float(needed.of(level)), vae + decoding[level in OFFLOAD_LEVELS[2:]])
        if peak <= SHARE * (size * GIB - DRIVER):
            return Planned(level, peak, seconds_of(level, frames, needed, counts[frames], BY_MEMORY[size]))
    return None


def seconds_of(level: str, frames: int, needed: Needs, count: Count, card: Card) -> dict[str, float]:
    """Seconds of all passes by quality; where blocks come one by one, a pass takes at least as long as they do."""
    each = card.seconds(count)
    if level in OFFLOAD_LEVELS[2:]:
        each = max(each, (needed.weights["transformer"] - 2 * needed.block) / PCIE)
    whole = SamplingConfig(max_frames=frames, overlap=LOW_OVERLAP)
    windows = len(windows_of((FRAMES - 1) // GROUP + 1, whole, GROUP))
    found = {}
    for quality in ("best", "draft"):
        config = whole.preset(quality)
        passes = config.steps * (1 + (config.guidance != 1))
        found[quality] = windows * passes * each
    return found


def needs_of(base: Base, quantization: str | None, frames: int) -> Needs:
    """Bytes of an edit in windows of so many frames, as a quantization leaves them."""
    method, pairs = new_method(), base.pairs(frames)
    with torch.device("meta"):
        transformer: Any = random_transformer(base.config, HALF)
        text_encoder = UMT5EncoderModel(UMT5Config(**UMT5_XXL)).to(HALF)
        vae = AutoencoderKLWan(**base.autoencoder)
    spared = weight_bytes(transformer) - weight_bytes(transformer, quantization)
    block = weight_bytes(transformer.blocks[0]) - weight_bytes(transformer.blocks[0], quantization)
    method.install(transformer, HALF)
    backbone = Backbone(base.name, None, transformer, vae, text_encoder, None, DEFAULT_SHIFT)
    needed = needs(backbone, method, pairs.frames * pairs.height * pairs.width // 4, 0)  # decoding is counted apart
    weights = needed.weights | {"transformer": round(needed.weights["transformer"] - spared)}
    held = weights["transformer"] / 2 if quantization in ON_DEVICE else needed.block - block  # two are on the device
    return replace(needed, weights=weights, block=round(held))


def pass_count(base: Base, frames: int) -> Count:
    """Launches, bytes and FLOPs of a pass over a window, with what is known of the source computed before."""
    with torch.no_grad():
        return of_all_blocks(new_method(), base.pairs(frames), HALF, edit_pass(KeepPlan()), config=base.config)


def decoding_bytes(base: Base, tiled: bool) -> float:
    """Peak bytes of decoding a few latent frames one by one, in float32, besides the autoencoder's weights.

    Args:
        tiled: one tile, and the pixels of all tiles of a group.
    """
    pairs = base.pairs(FRAMES)
    with FakeTensorMode(), torch.no_grad():
        vae: Any = AutoencoderKLWan(**base.autoencoder)
        sides, frame = (pairs.height, pairs.width), 0.0
        if tiled:
            vae.enable_tiling()
            tiling = decoding_tiles(vae, *sides)
            assert tiling is not None
            tiles = math.prod(tile / stride for tile, stride in zip(tiling.tile, tiling.stride, strict=True))
            frame = 4.0 * 3 * GROUP * base.height * base.width * (1 + tiles)
            sides, vae.use_tiling = tiling.tile, False
        latents = torch.empty(1, vae.config.z_dim, 3, *sides)
        return frame + step_peak(lambda: [None for _ in decode_parts(vae, [latents])][0])
