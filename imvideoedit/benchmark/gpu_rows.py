"""Computations at Wan 1.3B's sizes with their counted costs, beside what they took on an H200.

They run on meta and fake tensors (:mod:`imvideoedit.benchmark.launches`): no weights, no GPU, a few seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from imvideoedit.benchmark.block import IMAGE, VIDEO, Block, edit_step, plain_step
from imvideoedit.benchmark.cards import COMPILED_LAUNCH, LAUNCH
from imvideoedit.benchmark.fused import Scheduled
from imvideoedit.benchmark.launches import Count, counted
from imvideoedit.benchmark.peer import install_peer, installed_peer_step, peer_step
from imvideoedit.benchmark.whole_model import HALF, Step, of_all_blocks, step_count
from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.training.flops import Pairs
from imvideoedit.wan.bases import WAN_1_3B_I2V, WAN_14B_I2V
from imvideoedit.wan.forward import denoise
from imvideoedit.wan.kernels import compile_blocks

META = torch.device("meta")
WIDE = (IMAGE[0], IMAGE[1], 2 * IMAGE[2])  # tokens of both streams side by side
STILL, CLIP = Pairs(1, 60, 104), Pairs(1, 60, 104, frames=21)  # of 480x832, and of 81 frames
BATCH = 16  # pairs of an optimizer step of the 13K experiment


@dataclass(frozen=True)
class Row:
    """A computation.

    Attributes:
        measured: its seconds on one H200, where they are known.
        pairs: of a training step of all blocks.
        launch: seconds of one launch.
    """

    name: str
    count: Count
    measured: float | None = None
    pairs: int | None = None
    launch: float = LAUNCH


def block_rows() -> list[Row]:
    """A training step of one block on 1,560 + 1,560 tokens."""
    named: dict[str, tuple[TwoStreamMethod, float]] = {
        "the paper's, joint": (PredictUpdate(source_stream="joint"), 12.2e-3),
        "ours, cached": (AlignedUpdate(), 13.4e-3),
        "the paper's, cached": (PredictUpdate(), 15.2e-3),
        "the paper's, cached, LoRA": (PredictUpdate(adapter="lora"), 17.6e-3),
    }
    block = Block(IMAGE, None, META, HALF)
    rows = [Row("block, training: plain", counted(plain_step(block, True)), 4.7e-3)]
    peer = counted(peer_step(Block(WIDE, None, META, HALF), True))
    rows.append(Row("block, training: the peer's", peer, 9.0e-3))
    return rows + [
        Row(f"block, training: {name}", _in_block(block, method, True), measured)
        for name, (method, measured) in named.items()
    ]


def compiled_block_rows(backend: Scheduled) -> list[Row]:
    """The same of compiled blocks."""

    methods: dict[str, TwoStreamMethod | None] = {
        "the peer's": None,
        "the paper's, joint": PredictUpdate(source_stream="joint"),
        "ours, cached": AlignedUpdate(),
        "the paper's, cached": PredictUpdate(),
        "the paper's, cached, LoRA": PredictUpdate(adapter="lora"),
    }
    rows = []
    for name, method in methods.items():
        block = Block(IMAGE if method else WIDE, None, META, HALF)
        if method:
            method.install(block.transformer, HALF)
        else:
            install_peer(block, True)
        with FakeTensorMode():
            block.make_fake()
            compile_blocks(block.transformer, backend=backend)
            step = edit_step(block, method, True) if method else installed_peer_step(block, True)
            rows.append(Row(f"block, compiled: {name}", counted(step, backend), launch=COMPILED_LAUNCH))
    return rows


def long_block_rows() -> list[Row]:
    """A pass through one block on 32,760 tokens."""
    named: dict[str, tuple[TwoStreamMethod, float]] = {
        "ours": (AlignedUpdate(), 25.7e-3),
        "the paper's": (PredictUpdate(), 28.1e-3),
        "both streams": (Parallel2D(source_stream="joint"), 48.9e-3),
    }
    with torch.no_grad():
        block = Block(VIDEO, None, META, HALF)
        rows = [Row("block, 81 frames: plain", counted(plain_step(block, False)), 18.8e-3)]
        return rows + [
            Row(f"block, 81 frames: {name}", _in_block(block, method, False), measured)
            for name, (method, measured) in named.items()
        ]


def _in_block(block: Block, method: TwoStreamMethod, backward: bool) -> Count:
    method.install(block.transformer, HALF)
    try:
        return counted(edit_step(block, method, backward))
    finally:
        method.uninstall()


def pass_rows() -> list[Row]:
    """A pass of an 81-frame edit through all blocks, and of plain text-to-video."""

    def plain(transformer: Any, method: Method, batch: EditBatch) -> Callable[[], Any]:
        return lambda: denoise(transformer, batch.source_BCFHW, torch.full((1,), 0.5), batch.text_BTD)

    with torch.no_grad():
        return [
            Row("pass, 81 frames: plain", of_all_blocks(AlignedUpdate(), CLIP, HALF, plain), 0.605),
            Row("pass, 81 frames: ours", of_all_blocks(AlignedUpdate(), CLIP, HALF, edit_pass(KeepPlan())), 0.830),
        ]


def edit_pass(keep: KeepPlan | None) -> Callable[..., Callable[[], Any]]:
    """A pass of an edit that keeps what it knows of the source by a plan."""

    def compute(transformer: Any, method: Method, batch: EditBatch) -> Callable[[], Any]:
        velocity = method.velocity(transformer, batch, method.condition(transformer, batch, keep))
        return lambda: velocity(batch.source_BCFHW, torch.full((1,), 0.5))

    return compute


def compiled_step_rows(backend: Scheduled) -> list[Row]:
    """The steps of :func:`step_rows` with compiled blocks."""
    methods: dict[str, Method] = {"the paper's": PredictUpdate(), "ours": AlignedUpdate()}
    return [
        Row(
            f"step, compiled: {name}, {BATCH} pairs",
            step_count(method, replace(STILL, count=BATCH), Step(backend=backend)),
            pairs=BATCH,
            launch=COMPILED_LAUNCH,
        )
        for name, method in methods.items()
    ]


def step_rows() -> list[Row]:
    """An optimizer step of the 13K experiment on one GPU."""
    many = replace(STILL, count=BATCH)
    return [
        Row("step: the paper's, 1 pair", step_count(PredictUpdate(), STILL), 1.36, 1),
        Row(f"step: the paper's, {BATCH} pairs", step_count(PredictUpdate(), many), pairs=BATCH),
        Row(f"step: ours, {BATCH} pairs", step_count(AlignedUpdate(), many), pairs=BATCH),
    ]


def fit_rows() -> list[Row]:
    """An optimizer step of a fit of 49 frames at 480x832, blocks all at once on the GPU and one by one."""
    clip = replace(CLIP, frames=13)
    return [
        Row(f"fit, {size}: {words}", step_count(LoraEdit(), clip, Step(config, offload=offload)))
        for size, config in (("1.3B", WAN_1_3B_I2V), ("14B", WAN_14B_I2V))
        for words, offload in (("all at once", False), ("one by one", True))
    ]
