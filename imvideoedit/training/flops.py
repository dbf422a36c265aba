"""FLOPs and memory of a training step from shapes alone, on meta and fake tensors.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, T text tokens, D text width.
"""

import functools
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from imvideoedit.common.json_file import parse_json
from imvideoedit.common.machine import matmul_rate
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.methods.base import Method
from imvideoedit.training.block_offload import HOST, BlockOffload
from imvideoedit.wan.bases import meta_transformer

TEXT = 512  # tokens of Wan's texts
IMAGE_TOKENS = 257  # of Wan's image encoder
GROUP, SPATIAL = 4, 8  # frames and pixels a side of a latent, of Wan's autoencoders; 16 pixels of Wan2.2's
META = torch.device("meta")
FEW, MORE = 1, 3  # blocks of two small models; FLOPs and memory of all blocks follow, as both are linear in them


@dataclass(frozen=True)
class Pairs:
    """The pairs of one batch: how many, and the height, width and frames of their latents."""

    count: int
    height: int
    width: int
    text: int = TEXT  # tokens of a text
    frames: int = 1
    pixels: int = SPATIAL  # of a latent pixel's side

    def batch_of(
        self, config: Mapping[str, Any], method: Method, device: torch.device | str, dtype: torch.dtype
    ) -> EditBatch:
        """As :meth:`batch`, with what a method's own encoders give in place of labels and texts."""
        shapes = method.label_shapes().items()
        labels = {name: torch.randn(self.count, *shape, device=device) for name, shape in shapes}
        made = replace(self.batch(config, taken_by(method), device, dtype), labels=labels)
        if method.reader is None:
            return made
        pixels = GROUP * (self.frames - 1) + 1, self.pixels * self.height, self.pixels * self.width
        features = torch.randn(self.count, *method.reader.shape(*pixels), device=device)
        return replace(made, text_BTD=features.to(dtype))

    def batch(
        self, config: Mapping[str, Any], inputs: Sequence[Input], device: torch.device | str, dtype: torch.dtype
    ) -> EditBatch:
        """Random latents, text embeddings and inputs of that size."""
        channels = config["out_channels"]

        def latents(frames: int) -> Tensor:
            return torch.randn(self.count, channels, frames, self.height, self.width, device=device)

        def text() -> Tensor:
            return torch.randn(self.count, self.text, config["text_dim"], device=device).to(dtype)

        def encoded(each: Input) -> Tensor:
            if each.kind == "text":
                return text()
            if each.encoder == "clip":
                return torch.randn(self.count, IMAGE_TOKENS, config["image_dim"], device=device).to(dtype)
            frames = 1 if each.kind == "image" else self.frames
            if each.encoder == "vae":
                return latents(frames)
            pixels = (GROUP * (frames - 1) + 1, self.pixels * self.height, self.pixels * self.width)
            return torch.rand(self.count, 1 if each.kind == "mask" else 3, *pixels, device=device)

        conditions = {each.name: encoded(each) for each in inputs}
        return EditBatch(latents(self.frames), latents(self.frames), text(), conditions)


def taken_by(method: Method) -> tuple[Input, ...]:
    """What a batch for a method has besides source, target and text."""
    return (*method.inputs, *method.derived)


def method_like(method: Method, blocks: int | None = None) -> Method:
    """A method with the same options, not installed, for a transformer of its own or of so many blocks."""
    kind: Any = type(method)
    return kind(**(method.config() if blocks is None else method.config_of(blocks)))


def useful_flops(config: Mapping[str, Any], method: Method, batch: EditBatch) -> float:
    """FLOPs of matrix multiplications and attention in forward and backward of one batch, without recomputation.

    Args:
        config: of the transformer.
        method: gives class and options; it is not changed.
    """
    few, more = (_counted({**config, "num_layers": layers}, method, batch) for layers in (FEW, MORE))
    return few + (more - few) / (MORE - FEW) * (config["num_layers"] - FEW)


def _counted(config: dict[str, Any], method: Method, batch: EditBatch) -> float:
    transformer = meta_transformer(config)
    like = method_like(method, config["num_layers"])
    like.install(transformer)
    counter = FlopCounterMode(display=False)
    with counter:
        loss_of(transformer, like, batch.to("meta")).backward()
    return float(counter.get_total_flops())


def random_transformer(config: Mapping[str, Any], dtype: torch.dtype) -> WanTransformer3DModel:
    """A frozen transformer with random weights, created in ``dtype`` so that there never is a second copy."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return WanTransformer3DModel(**config).requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)


def loss_of(transformer: WanTransformer3DModel, method: Method, batch: EditBatch) -> Tensor:
    """The training loss of a batch."""
    losses = method.losses(transformer, batch)
    return torch.stack([loss_B.mean() for loss_B in losses.values()]).sum()


class AllocationTracker(TorchDispatchMode):
    """Tracks the bytes of all tensors created within it, real or fake, and their peak.

    Tensors on the meta device do not count: they stand for those that have left the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage(), 0)  # existed before, if it is not known
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device != META:
                self._add(leaf.untyped_storage(), leaf.untyped_storage().nbytes())
        return result

    def _add(self, storage: Any, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)


def activation_bytes(
    config: Mapping[str, Any],
    method: Method,
    pairs: Pairs,
    checkpointing: bool,
    weights: torch.dtype,
    offload: bool = False,
) -> int:
    """Peak bytes of a step in bfloat16, in addition to weights and gradients.

    Args:
        weights: dtype of the trained weights: float32 under autocast, or bfloat16.
        offload: of the blocks, see :mod:`imvideoedit.training.block_offload`; the peak is then that of few blocks,
            with the weights of the two that are on the device.
    """
    sizes = json.dumps(dict(config), default=str, sort_keys=True)

    def peak(layers: int) -> int:
        options = json.dumps(method.config_of(layers), sort_keys=True)
        return _activations(sizes, type(method), options, layers, pairs, (checkpointing, weights, offload))

    if offload:
        return peak(MORE)
    few, more = peak(FEW), peak(MORE)
    each = (more - few) / (MORE - FEW)
    return int(few + each * (config["num_layers"] - FEW))


@functools.cache
def _activations(
    sizes: str, kind: Any, options: str, layers: int, pairs: Pairs, how: tuple[bool, torch.dtype, bool]
) -> int:
    checkpointing, weights, offload = how
    with torch.device("meta"):
        transformer = random_transformer({**parse_json(sizes, "the sizes"), "num_layers": layers}, torch.bfloat16)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    like = kind(**parse_json(options, "the options"))
    like.install(transformer, weights)
    with FakeTensorMode():
        make_fake(nn.ModuleList([transformer, like]))  # what a method keeps to itself, too
        batch = pairs.batch_of(transformer.config, like, "cpu", torch.bfloat16)
        mixed = torch.autocast("cpu", torch.bfloat16, weights == torch.float32, cache_enabled=False)

        def step() -> None:
            with mixed:
                loss = loss_of(transformer, like, batch)
            loss.backward()

        if offload:
            transformer.enable_gradient_checkpointing(BlockOffload(transformer, HOST, META).run)
        return step_peak(step)


def make_fake(module: nn.Module) -> None:
    """Replace meta tensors, which autocast ignores, by fake ones on the CPU, within a ``FakeTensorMode``."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                part._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def step_peak(step: Callable[[], None]) -> int:
    """Peak bytes that a step allocates; gradients exist already, as within an accumulation."""
    step()
    tracker = AllocationTracker()
    with tracker:
        step()
    return tracker.peak


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s for MFU: a GPU's stated bfloat16 peak, or the measured rate of large matrix multiplications in ``dtype``.

    The larger of both, since Lightning's table takes some GPUs for slower ones (an L40S for an L4) and lacks others.
    """
    return max(get_available_flops(device, torch.bfloat16) or 0.0, matmul_rate(device, dtype))
