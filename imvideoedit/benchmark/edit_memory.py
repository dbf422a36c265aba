"""Memory of an 81-frame edit with Wan 1.3B: what ``--memory`` plans by, beside bytes counted on fake tensors.

``python -m imvideoedit.benchmark memory`` takes no GPU and no weights. Time is foretold as by ``gpu_model``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import UMT5Config, UMT5EncoderModel

from imvideoedit.benchmark.base_cards import UMT5_XXL
from imvideoedit.benchmark.cards import CARDS
from imvideoedit.benchmark.gpu_rows import CLIP, edit_pass
from imvideoedit.benchmark.launches import gpu_kernels
from imvideoedit.benchmark.whole_model import HALF, of_all_blocks
from imvideoedit.editing.conditions import PART
from imvideoedit.editing.memory import GIB, SHARE, Needs, needs
from imvideoedit.editing.offload import choose_level
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import KeepPlan, plan_keeping
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.flops import GROUP, SPATIAL, make_fake, method_like, random_transformer, step_peak
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.bases import WAN_1_3B
from imvideoedit.wan.locations import DEFAULT_SHIFT
from imvideoedit.wan.streaming_vae import decode_parts, encode_parts

FREE = {"24 GB": 23.5, "16 GB": 15.5, "12 GB": 11.6}  # GiB of a card that its driver leaves
SHOWN = ("H200", "4090")
METHODS: dict[str, Callable[[], Method]] = {"ours": AlignedUpdate, "the paper's": PredictUpdate}
TOKENS, PIXELS = CLIP.frames * CLIP.height * CLIP.width // 4, CLIP.height * CLIP.width * SPATIAL**2


@dataclass(frozen=True)
class Planned:
    """What ``--memory auto`` does on a card: bytes on the device, and the share of a pass's time that it adds."""

    level: str
    plan: KeepPlan
    peak: int
    slower: dict[str, float]


def measure_memory() -> dict[str, Any]:
    """Print estimates beside counts, and the plans for each card; return the figures."""
    console, figures = Console(width=150), dict[str, Any]()
    for name, kind in METHODS.items():
        method = kind()
        needed = needs(meta_backbone(method), method, TOKENS, PIXELS)
        counted = counted_bytes(method)
        console.print(_beside(name, needed, counted))
        slower = slowdowns(kind())
        planned = {card: plan_for(needed, GIB * free, slower) for card, free in FREE.items()}
        console.print(_plans(name, needed, planned))
        figures[name] = {"estimated": estimated(needed), "counted": counted}
        figures[name]["planned"] = {card: vars(each) | {"plan": each.plan.places} for card, each in planned.items()}
    return figures


def meta_backbone(method: Method) -> Backbone:
    """Wan 1.3B with all its parts in the types that edits use, without storage, and the method installed."""
    with torch.device("meta"):
        transformer = random_transformer(WAN_1_3B, HALF)
        text_encoder = UMT5EncoderModel(UMT5Config(**UMT5_XXL)).to(HALF)
        vae = AutoencoderKLWan()
    method.install(transformer, HALF)
    return Backbone("wan_1_3b", None, transformer, vae, text_encoder, None, DEFAULT_SHIFT)


def estimated(needed: Needs) -> dict[str, int]:
    """The parts that can be counted."""
    return {
        "a pass": needed.work,
        "features of a block, recorded": needed.features[0].recorded,
        "features of a block, prepared": needed.features[0].prepared,
        "decoding": needed.coding,
        "encoding": needed.coding,
    }


def counted_bytes(method: Method) -> dict[str, int]:
    """The same, counted on fake tensors: peaks of what is allocated, and growth by each further block."""

    def peak(layers: int, keep: KeepPlan | None, whole: bool) -> int:
        with torch.device("meta"):
            transformer = random_transformer({**WAN_1_3B, "num_layers": layers}, HALF)
        like = method_like(method, layers)
        like.install(transformer, HALF)
        with FakeTensorMode(), torch.no_grad(), gpu_kernels():
            for part in (transformer, like):
                make_fake(part)
            batch = CLIP.batch_of(transformer.config, like, "cpu", HALF)
            run = edit_pass(keep)
            if whole:
                return step_peak(lambda: run(transformer, like, batch)())
            return step_peak(run(transformer, like, batch))

    def growth(keep: KeepPlan | None) -> int:
        return (peak(5, keep, True) - peak(3, keep, True)) // 2

    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKLWan()
        latents = torch.empty(1, vae.config.z_dim, 3 * PART, CLIP.height, CLIP.width)
        frames = torch.empty(1, 3, 1 + 3 * PART * GROUP, SPATIAL * CLIP.height, SPATIAL * CLIP.width)
        first, rest = frames[:, :, : 1 + PART * GROUP], frames[:, :, 1 + PART * GROUP :]
        parts = [first, *rest.split(PART * GROUP, dim=2)]
        decoding = step_peak(lambda: [None for _ in decode_parts(vae, latents.split(PART, dim=2))][0])
        encoding = step_peak(lambda: [None for _ in encode_parts(vae, parts)][0])
    return {
        "a pass": peak(2, KeepPlan(), False),
        "features of a block, recorded": growth(None),
        "features of a block, prepared": growth(KeepPlan()),
        "decoding": decoding,
        "encoding": encoding,
    }


def slowdowns(method: Method) -> dict[str, float]:
    """By card, what a pass takes more, as a share, for each block whose features are computed anew."""
    with torch.no_grad():
        kept, anew = (of_all_blocks(method, CLIP, HALF, edit_pass(keep)) for keep in (KeepPlan(), None))
    blocks = WAN_1_3B["num_layers"]
    return {card.name: (card.seconds(anew) / card.seconds(kept) - 1) / blocks for card in CARDS}


def plan_for(needed: Needs, free: float, slower: dict[str, float]) -> Planned:
    """What ``--memory auto`` plans.

    Args:
        free: bytes of the card.
        slower: of :func:`slowdowns`.
    """
    room = SHARE * free
    level = choose_level("auto", needed, torch.device("cuda"), room)
    plan = plan_keeping(needed.features, room - needed.held(level) - needed.work, host_room=float("inf"))
    assert plan is not None
    anew = sum(plan.of_block(index) != "prepared" for index in range(len(needed.features)))
    peak = needed.of(level, plan.device_bytes(needed.features))
    return Planned(level, plan, peak, {name: anew * value for name, value in slower.items()})


def _beside(name: str, needed: Needs, counted: dict[str, int]) -> Table:
    table = Table(f"{name}, MiB", "estimated", "counted", "ratio")
    for part, value in estimated(needed).items():
        table.add_row(part, f"{value / 2**20:,.0f}", f"{counted[part] / 2**20:,.0f}", f"{value / counted[part]:.2f}")
    return table


def _plans(name: str, needed: Needs, planned: dict[str, Planned]) -> Table:
    table = Table(f"{name}, auto on", "level", "GiB", "of", "source", *(f"slower, {name}" for name in SHOWN))
    for card, each in planned.items():
        cells = [each.level, f"{each.peak / GIB:.1f}", f"{SHARE * FREE[card]:.1f}"]
        cells.append(each.plan.describe(len(needed.features)))
        table.add_row(card, *cells, *(f"{each.slower[shown]:.1%}" for shown in SHOWN))
    return table
