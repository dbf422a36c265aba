"""What a method asks of training examples and of texts: media and labels of training alone, changes, and wording."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.methods.reader import Reader


class ExampleNeeds(nn.Module):
    """The part of a method's contract that data read; without a word from the method, pairs come as they are."""

    inputs: ClassVar[tuple[Input, ...]] = ()  # besides source and text
    training_inputs: ClassVar[tuple[Input, ...]] = ()  # of training alone: data give them, and edits take none
    reads_instructions: ClassVar[bool] = False  # the text says what to change, and not how the scene is after the edit
    own_reader: ClassVar[bool] = (
        False  # whether it has a :attr:`reader`, so that the backbone's text encoder is not needed
    )
    drops_weights: ClassVar[bool] = False  # whether weights of the transformer are taken out of it
    reader: Reader | None = None  # encodes the text with what is seen, in place of the backbone's text encoder

    @property
    def data_inputs(self) -> tuple[Input, ...]:
        """What data give for training: the inputs, and those of training alone."""
        return self.inputs + self.training_inputs

    @property
    def changes_examples(self) -> bool:
        """Whether :meth:`transform` does anything."""
        return type(self).transform is not ExampleNeeds.transform

    @property
    def looks_ahead(self) -> bool:
        """Whether clips that are source and target at once come with the frames behind, see :meth:`transform`."""
        return False

    def transform(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Change a training example before it is encoded, such as by a pretext task, and add what is derived.

        Args:
            example: ``source``, ``target`` and the inputs by name, at the model's size: uint8 ``[F, H, W, 3]``, of an
                image with one frame; masks uint8 ``[F, H, W]``; texts, and the prompt as ``prompt``, as str. Where the
                method looks ahead, clips that are source and target at once also have their next frames, up to F - 1,
                as ``ahead``, which is not among what is returned.
            rng: depends on the seed, the row and the epoch alone.
        """
        return example

    @property
    def derived(self) -> Sequence[Input]:
        """What :meth:`derive` makes of source and inputs; encoded beside them in an edit, given by nobody."""
        return ()

    def derive(
        self, name: str, source: Iterable[np.ndarray], inputs: Mapping[str, Iterable[np.ndarray]]
    ) -> Iterable[np.ndarray]:
        """Frames of one of :attr:`derived`, uint8 ``[H, W, 3]``, from those of the source and, at its size, the inputs.

        Masks are uint8 ``[H, W]``, one a frame of the source; an image has one frame.
        """
        raise NotImplementedError

    def labelled(self, batch: EditBatch) -> EditBatch:
        """A training batch with what the method's own frozen encoders make of it as ``labels``; here as it is."""
        return batch

    def label_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of a sample's labels by :meth:`labelled`, with which costs are counted without its encoders."""
        return {}

    def prompt(self, text: str) -> str:
        """The text that an edit encodes for a prompt, and for the empty one; here itself."""
        return text
