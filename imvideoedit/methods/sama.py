"""SAMA: semantic anchoring and motion alignment, see :class:`Sama`; its one sequence is :mod:`sama_sequence`.

The semantic tokens say what SigLIP sees in the target's first frame. They are noised at the video's own level and
denoised beside it:

    s_sigma = (1 - sigma) s + sigma eps_s,    L = L_FM + 0.1 mean |head - (eps_s - s)|

The first training stage changes the sources of plain videos by :mod:`imvideoedit.methods.motion_pretexts`.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, S semantic tokens, W their width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.utils._pytree import tree_map

from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.flow.matching import PathPoint
from imvideoedit.flow.solvers import State, Velocity, video_of
from imvideoedit.methods.motion_pretexts import draw_task, with_pretext
from imvideoedit.methods.sama_sequence import SamaSequence
from imvideoedit.methods.semantic_tokens import TOKENS

SMALLEST = 1e-3  # of the noise levels at which a velocity is made from a clean prediction


class Sama(SamaSequence):
    """Semantic anchoring and motion alignment.

    Args:
        objective: of training.
        options: see :class:`SamaOptions`.

    Raises:
        UserError: an option is out of its range.
    """

    name = "sama"
    training_inputs = (Input("anchor", "image", "raw", from_target=True),)
    reads_instructions = True

    # Examples.

    @property
    def changes_examples(self) -> bool:
        return self.options.pretext or bool(self.options.prefix)

    @property
    def looks_ahead(self) -> bool:
        return self.options.pretext

    def transform(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        plain = len(example["source"]) > 1 and np.array_equal(example["source"], example["target"])
        if self.options.pretext and plain:
            example = with_pretext(example, draw_task(rng), rng)
        kept = {name: value for name, value in example.items() if name != "ahead"}
        return kept | {"prompt": self.prompt(example["prompt"])}

    def prompt(self, text: str) -> str:
        return f"{self.options.prefix} {text}".strip() if self.options.prefix else text

    def label_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"semantic": (TOKENS, self.options.width)} if self.options.anchoring else {}

    def labelled(self, batch: EditBatch) -> EditBatch:
        """With ``semantic``, the tokens of SigLIP, which takes less than a hundredth of a training step at Wan's size.

        Raises:
            UserError: SigLIP cannot be loaded, or has another width.
        """
        if not self.options.anchoring or "semantic" in batch.labels:
            return batch
        tokens_BSW = self.siglip(batch.conditions["anchor"][:, :, 0])
        return replace(batch, labels={**batch.labels, "semantic": tokens_BSW})

    # Training.

    def training_point(
        self, batch: EditBatch, generator: torch.Generator | None = None, sigma_B: Tensor | None = None
    ) -> tuple[PathPoint, Tensor, Tensor | None]:
        """As the base, where the state's ``semantic`` is to be predicted as the head's target says.

        Raises:
            ValueError: the batch has no target, or no semantic tokens.
        """
        point, sigma_B, weights = super().training_point(batch, generator, sigma_B)
        if not self.options.anchoring:
            return point, sigma_B, weights
        if "semantic" not in batch.labels:
            raise ValueError("a batch without semantic tokens has no semantic loss; make it by labelled()")
        clean_BSW = batch.labels["semantic"].float()
        if self.projected:
            clean_BSW = self.project(clean_BSW.to(self.project.fc1.weight.dtype)).float()
        where = clean_BSW.device if generator is None else generator.device
        noise_BSW = torch.randn(clean_BSW.shape, generator=generator, device=where).to(clean_BSW.device)
        sigma_B11 = sigma_B.reshape(-1, 1, 1)
        x = {"video": point.x_BCFHW, "semantic": (1 - sigma_B11) * clean_BSW + sigma_B11 * noise_BSW}
        # The stop-gradient keeps a trained projector from making all tokens alike.
        wanted_BSW = clean_BSW.detach() if self.projected else noise_BSW - clean_BSW
        states: Any = x, {"video": point.velocity_BCFHW, "semantic": wanted_BSW}
        return PathPoint(*states), sigma_B, weights

    def losses_at(
        self,
        transformer: WanTransformer3DModel,
        batch: EditBatch,
        point: PathPoint,
        sigma_B: Tensor,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``flow_matching``, and ``semantic`` with its weight."""
        predicted = self.predicted(transformer, batch.source_BCFHW, batch.text_BTD, point.x_BCFHW, sigma_B)
        wanted: Any = point.velocity_BCFHW
        losses = {"flow_matching": self.objective.loss(video_of(predicted), video_of(wanted), weights)}
        if self.options.anchoring and self.options.weight:
            error_BSW = (predicted["semantic"] - wanted["semantic"]).abs()
            losses["semantic"] = self.options.weight * error_BSW.flatten(1).mean(1)
        return losses

    # Sampling.

    def initial(self, batch: EditBatch, generator: torch.Generator | None) -> State:
        """The video's noise, and that of ``semantic``."""
        video_BCFHW = super().initial(batch, generator)
        if not self.options.anchoring:
            return video_BCFHW
        width = self.head.proj.out_features
        where = (generator or torch.default_generator).device
        noise_BSW = torch.randn(len(video_BCFHW), TOKENS, width, generator=generator, device=where)
        return {"video": video_BCFHW, "semantic": noise_BSW.to(video_BCFHW)}

    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        return self._velocity(transformer, batch.source_BCFHW, batch.text_BTD)

    def _velocity(self, transformer: WanTransformer3DModel, source_BCFHW: Tensor | None, text_BTD: Tensor) -> Velocity:
        def velocity(state: State, sigma_B: Tensor) -> State:
            predicted = self.predicted(transformer, source_BCFHW, text_BTD, state, sigma_B)
            if self.options.anchoring and self.projected:
                level_B11 = sigma_B.clamp(min=SMALLEST).reshape(-1, 1, 1)
                predicted["semantic"] = (state["semantic"] - predicted["semantic"]) / level_B11
            return tree_map(lambda v, x: v.to(x.dtype), predicted, state)

        return velocity

    def branches(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any) -> dict[str, Velocity]:
        """``without_source`` has no source in its sequence."""
        source_BCFHW, text_BTD = batch.source_BCFHW, batch.text_BTD
        named = {
            "edit": self._velocity(transformer, source_BCFHW, text_BTD),
            "without_source": self._velocity(transformer, None, text_BTD),
        }
        if batch.empty_TD is not None:
            named["without_text"] = self._velocity(transformer, source_BCFHW, batch.without_text().text_BTD)
        return named
