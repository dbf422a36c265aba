"""The contract of a method: modules put into a frozen transformer, a velocity to sample with, losses to train on.

The core (training, sampling, offloading, the commands) knows no method by name: it asks. A new method is one class, one
configuration and one row in the contract's test.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.guidance import Guidance, extrapolated, pushed
from imvideoedit.flow.matching import FlowMatching, PathPoint
from imvideoedit.flow.solvers import State, Velocity
from imvideoedit.methods.example_needs import ExampleNeeds
from imvideoedit.methods.keep_plan import BlockBytes, KeepPlan
from imvideoedit.wan.forward import close_forward, denoise, open_forward

Gauge = tuple[nn.Module, Callable[[Tensor], Tensor]]
"""A module, and the map from its output to values in [0, 1]."""


class Method(ExampleNeeds, ABC):
    """Base of all methods. All that a method registers is trained and saved; it has no weights until installed.

    Subclasses set ``name`` and ``inputs``, and implement :meth:`config`, :meth:`build` and :meth:`velocity`.

    A method that registers the transformer's own weights, see :func:`imvideoedit.wan.own_weights.own_weights`, sets
    ``trains_backbone``. Its adapter file then holds them all, and to uninstall it leaves them as they were trained.
    """

    name: ClassVar[str]
    trains_backbone: bool = False

    def __init__(self, objective: FlowMatching | None = None) -> None:
        super().__init__()
        self.objective = objective or FlowMatching()
        self.__dict__["transformer"] = None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The resolved constructor arguments, JSON-able, that rebuild the installed modules."""

    def config_of(self, blocks: int) -> dict[str, Any]:
        """The arguments for a transformer of fewer blocks than its own, from which costs are extrapolated."""
        return self.config()

    # Putting it into a transformer.

    def install(self, transformer: WanTransformer3DModel, dtype: torch.dtype = torch.float32) -> None:
        """Freeze the transformer and put fresh trained modules into it.

        Args:
            dtype: of the trained weights. Keep float32 for training and run a half-precision backbone under autocast;
                to sample without autocast, use the backbone's.

        Raises:
            RuntimeError: this method is installed already, or the transformer is adapted already.
            UserError: the method is not made for such a model.
        """
        if self.transformer is not None:
            raise RuntimeError("this method is installed already")
        self.check_base(transformer)
        open_forward(transformer)
        transformer.requires_grad_(False)
        self.build(transformer, dtype)
        self.__dict__["transformer"] = transformer

    def check_base(self, transformer: WanTransformer3DModel) -> None:
        """See that the method is made for such a model: of text-to-video, unless a method says otherwise.

        Raises:
            UserError: it is not, by its input channels.
        """
        own: Any = transformer.config
        if own.in_channels != own.out_channels or own.image_dim is not None:
            raise UserError(
                f"{self.name} takes a text-to-video model of {own.out_channels} input channels; this one has "
                f"{what_it_reads(own)}; give another backbone"
            )

    @abstractmethod
    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        """Register the trained modules, in ``dtype`` on the transformer's device, and put in what goes into it."""

    def remove(self, transformer: WanTransformer3DModel) -> None:
        """Take out of the transformer what :meth:`build` put in."""

    def detach(self) -> None:
        """Restore the transformer, but keep the trained weights, for a mixture to install."""
        self.remove(self.transformer)
        close_forward(self.transformer)

    def uninstall(self) -> None:
        """Restore the transformer and drop the trained weights. Does nothing when not installed."""
        if self.transformer is not None:
            self.detach()
            self._modules.clear()
            self._parameters.clear()
            self._buffers.clear()
            self.__dict__["transformer"] = None

    # Training.

    def losses(
        self,
        transformer: WanTransformer3DModel,
        batch: EditBatch,
        generator: torch.Generator | None = None,
        sigma_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named losses, one value a sample: ``[B]`` float32 each. The training loss is the sum of their means.

        Args:
            generator: source of the noise, and of the noise levels when they are not given.
            sigma_B: noise levels, such as those of a fixed validation grid; else drawn from the objective.

        Raises:
            ValueError: the batch has no target.
        """
        return self.losses_at(transformer, batch, *self.training_point(batch, generator, sigma_B))

    def losses_at(
        self,
        transformer: WanTransformer3DModel,
        batch: EditBatch,
        point: PathPoint,
        sigma_B: Tensor,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """:meth:`losses` at a training point: a function of tensors, which compiles as a whole."""
        predicted_BCFHW = self.velocity(transformer, batch)(point.x_BCFHW, sigma_B)
        return {"flow_matching": self.objective.loss(predicted_BCFHW, point.velocity_BCFHW, weights)}

    def training_point(
        self, batch: EditBatch, generator: torch.Generator | None = None, sigma_B: Tensor | None = None
    ) -> tuple[PathPoint, Tensor, Tensor | None]:
        """Noisy targets with their velocities, noise levels, and the loss's weights; arguments as :meth:`losses`."""
        if batch.target_BCFHW is None:
            raise ValueError("a batch without a target has no loss")
        clean_BCFHW, device = batch.target_BCFHW, batch.target_BCFHW.device
        if sigma_B is None:
            sigma_B = self.objective.sample_sigma(len(clean_BCFHW), generator, device)
        where = device if generator is None else generator.device
        noise_BCFHW = torch.randn(clean_BCFHW.shape, generator=generator, device=where, dtype=torch.float32)
        point = self.objective.path(clean_BCFHW.float(), noise_BCFHW.to(device), sigma_B)
        return point, sigma_B, self.objective.weights(batch.source_BCFHW, clean_BCFHW)

    # Sampling.

    def condition(self, transformer: WanTransformer3DModel, batch: EditBatch, keep: KeepPlan | None = None) -> Any:
        """What is computed once for all steps and branches of an edit, such as ``SourceFeatures``; or None.

        Args:
            keep: where the source's features of each block are from step to step; None keeps the least.
        """
        return None

    def feature_bytes(self, tokens: int) -> Sequence[BlockBytes]:
        """Sizes of the source's features that :meth:`condition` keeps of so many tokens, by block, if it does."""
        return ()

    @abstractmethod
    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        """The velocity of the target, given the batch's source, text and conditions.

        Args:
            transformer: the one this method is installed in.
            batch: its target is not used.
            known: of :meth:`condition` for the same source; None: each call computes it, with gradients.

        Returns:
            ``(x, sigma_B) -> v`` on states like those of :meth:`initial`, differentiable in the trained weights.
        """

    def initial(self, batch: EditBatch, generator: torch.Generator | None) -> State:
        """Noise for the whole video: its latents, or several tensors by name with the video's as ``video``.

        The generator is on the CPU in sampling, so that a seed gives the same noise on every device.
        """
        where = (generator or torch.default_generator).device
        return torch.randn(batch.source_BCFHW.shape, generator=generator, device=where).to(batch.source_BCFHW)

    def window(self, batch: EditBatch, frames: slice, group: int) -> EditBatch:
        """Source, videos and masks cut to latent frames of ``group`` frames: first to all of them, then to windows."""
        pixels = slice(group * frames.start, group * (frames.stop - 1) + 1)
        cut = {
            each.name: batch.conditions[each.name][:, :, frames if each.encoder == "vae" else pixels]
            for each in self.inputs
            if each.kind in ("video", "mask") and each.name in batch.conditions
        }
        conditions = {**batch.conditions, **cut}
        return replace(batch, source_BCFHW=batch.source_BCFHW[:, :, frames], conditions=conditions)

    def branches(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any) -> dict[str, Velocity]:
        """The velocities that :meth:`guide` may combine, by name; the batch has the empty text if one needs it."""
        alone = partial(denoise, transformer, text_BTD=batch.text_BTD)  # the frozen model's, without a source
        named: dict[str, Velocity] = {"edit": self.velocity(transformer, batch, known), "without_source": alone}
        if batch.empty_TD is not None:
            named["without_text"] = self.velocity(transformer, batch.without_text(), known)
        return named

    def guide(self, branch: Callable[[str], State], guidance: Guidance) -> State:
        """The guided velocity, ``v + (s_T - 1)(v - v_without_text) + (s_S - 1)(v - v_without_source)``.

        Neither scale scales what the other adds, as in InstructPix2Pix, whose terms come in the other order.
        ``branch`` computes one of :meth:`branches`, so that those not asked for cost nothing.
        """
        v = guided = branch("edit")
        if guidance.source != 1:
            guided = extrapolated(branch("without_source"), v, guidance.source)
        if guidance.text != 1:
            guided = pushed(guided, v, branch("without_text"), guidance.text)
        return guided

    # What others ask to place, shard, compile and watch it.

    def apart(self) -> Sequence[nn.Module]:
        """Trained modules that are not inside the transformer: who moves that must move these."""
        return list(self.children())

    def shard_units(self) -> Sequence[nn.Module]:
        """Modules whose weights are gathered together for a call under FSDP; all of the trained ones."""
        return [child for child in self.children() if list(child.parameters())]

    def compile_units(self) -> Sequence[nn.Module]:
        """Trained modules outside the transformer's blocks that take and return tensors only, compiled each."""
        return [child for child in self.apart() if list(child.parameters())]

    def working_bytes(self, tokens: int) -> int:
        """Bytes that an edit of so many tokens keeps from step to step, besides the transformer's own."""
        return 0

    def gauges(self) -> Mapping[str, Gauge]:
        """Gates and the like, by name, whose mean and share near 0 and 1 a training run logs."""
        return {}


def what_it_reads(config: Any) -> str:
    """A transformer's input channels, for errors, and that it has layers for an image's tokens where it has."""
    return f"{config.in_channels}{'' if config.image_dim is None else ' and reads tokens of an image'}"
