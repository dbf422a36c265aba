"""The contract of a method: modules put into a frozen transformer, a velocity to sample with, losses to train on.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.wan.context import AdaptedProcessor
from imvideoedit.wan.forward import attach, detach


class Method(nn.Module, ABC):
    """Base of all methods. All that a method registers is trained and saved; it has no weights until installed.

    Subclasses set ``name`` and implement :meth:`build_processor`, :meth:`velocity` and :meth:`config`.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[Input, ...]] = ()  # besides source and text

    def __init__(self, objective: FlowMatching | None = None) -> None:
        super().__init__()
        self.objective = objective or FlowMatching()
        self.blocks = nn.ModuleList()
        self.__dict__["transformer"] = None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The resolved constructor arguments, JSON-able, that rebuild the installed modules."""

    @abstractmethod
    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> AdaptedProcessor:
        """Make the processor of one block, with its trained weights in ``dtype`` on the block's device."""

    def transform(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Change a training example before it is encoded, such as by a pretext task; here it stays as it is.

        Args:
            example: ``source``, ``target`` and the inputs by name, at the model's size: uint8 ``[F, H, W, 3]``, of an
                image with one frame; masks uint8 ``[F, H, W]``; texts, and the prompt as ``prompt``, as str.
            rng: depends on the seed, the row and the epoch alone.
        """
        return example

    def condition(self, transformer: WanTransformer3DModel, batch: EditBatch) -> Any:
        """What is computed once for all steps and guidance branches of an edit, such as ``SourceFeatures``; or None."""
        return None

    @abstractmethod
    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        """The velocity of the target, given the batch's source and text.

        Args:
            transformer: the one this method is installed in.
            batch: source and text; its target is not used.
            known: result of :meth:`condition` for the same source; when None, each call computes it, with gradients.

        Returns:
            ``(x_BCFHW, sigma_B) -> v_BCFHW``, differentiable in the trained weights.
        """

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
        if batch.target_BCFHW is None:
            raise ValueError("a batch without a target has no loss")
        clean_BCFHW = batch.target_BCFHW
        device = clean_BCFHW.device
        if sigma_B is None:
            sigma_B = self.objective.sample_sigma(len(clean_BCFHW), generator, device)
        where = device if generator is None else generator.device
        noise_BCFHW = torch.randn(clean_BCFHW.shape, generator=generator, device=where, dtype=torch.float32)
        point = self.objective.path(clean_BCFHW.float(), noise_BCFHW.to(device), sigma_B)
        predicted_BCFHW = self.velocity(transformer, batch)(point.x_BCFHW, sigma_B)
        weights = self.objective.weights(batch.source_BCFHW, clean_BCFHW)
        return {"flow_matching": self.objective.loss(predicted_BCFHW, point.velocity_BCFHW, weights)}

    def install(self, transformer: WanTransformer3DModel, dtype: torch.dtype = torch.float32) -> None:
        """Freeze the transformer and put fresh trained modules into it.

        Args:
            dtype: of the trained weights. Keep float32 for training and run a half-precision backbone under autocast;
                to sample without autocast, use the backbone's.

        Raises:
            RuntimeError: this method is installed already, or the transformer is adapted already.
        """
        if self.transformer is not None:
            raise RuntimeError("this method is installed already")
        transformer.requires_grad_(False)
        processors = [self.build_processor(index, block, dtype) for index, block in enumerate(transformer.blocks)]
        attach(transformer, processors)
        self.blocks = nn.ModuleList(processors)
        self.__dict__["transformer"] = transformer

    def detach(self) -> None:
        """Restore the transformer, but keep the trained weights, for a mixture to install."""
        detach(self.transformer)

    def uninstall(self) -> None:
        """Restore the transformer and drop the trained weights. Does nothing when not installed."""
        if self.transformer is not None:
            detach(self.transformer)
            self.blocks = nn.ModuleList()
            self.__dict__["transformer"] = None
