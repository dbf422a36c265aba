"""A frozen Qwen3-VL that reads source, reference and instruction in one pass, and gives the states of its layers.
What it is given is made by :mod:`vision_inputs`, up to the instruction's end. Attention is causal, so that what stands
before the instruction is read the same with and without it: an edit needs one pass, also with guidance by the text.

Shapes: H W pixels, P patches, V values of a patch, T tokens, W the model's width, K layers that are read.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.hashing import fingerprint
from imvideoedit.methods.mive_options import MiveOptions
from imvideoedit.methods.vision_inputs import patches, prompt, times_of, tokens_of
from imvideoedit.video.geometry import fit_size
from imvideoedit.wan.locations import default_dtype

RATE = 16  # frames a second, of Wan's own clips: a frame's time tells the model its order
LAYOUT = 1  # of the features
MARKS = 9  # tokens around the frames of one group: its time, its begin and its end


class VisionLanguage:
    """The model, loaded when it is first needed; it may be called from several threads.

    Args:
        options: which model, what it sees, and what is read.
    """

    def __init__(self, options: MiveOptions) -> None:
        self._options = options
        self._loaded: tuple[Any, Any] | None = None  # model and tokenizer
        self._place, self._turn = options.vlm, threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options}  # another process loads its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_options"])  # type: ignore[misc]

    @property
    def name(self) -> str:
        """Identifies model and settings.

        Raises:
            UserError: there is no such model.
        """
        own, where = self._options, self._place
        if Path(where).is_dir():
            files = fingerprint(where)
        else:
            files = f"{where}@{getattr(self._config(), '_commit_hash', None)}"
        seen = (own.layers, own.post_deepstack, own.frames, own.pixels, own.text_tokens)
        return f"qwen3_vl {LAYOUT} {files} {seen}"

    def places(self, count: int) -> list[int]:
        """Evenly spaced ones, with the first and the last; all where there are at most ``frames``."""
        return np.linspace(0, count - 1, min(self._options.frames, count)).round().astype(int).tolist()

    def shape(self, count: int, height: int, width: int) -> tuple[int, int]:
        """About (T, K W): timestamps of ten seconds and more take a token more."""
        own = self._options
        tall, wide = self._size(height, width)
        groups = -(-min(own.frames, count) // 2)
        seen = (groups + 1) * tall * wide // own.token**2
        return seen + groups * MARKS + 5 + own.text_tokens, len(own.read) * own.width

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of its weights, by its configuration.

        Raises:
            UserError: there is no such model.
        """
        from transformers import Qwen3VLModel

        with torch.device("meta"):
            model = Qwen3VLModel(self._config())
        return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Inside, the model works on a device; afterwards its weights are on the CPU.

        Raises:
            UserError: it cannot be loaded, is no Qwen3-VL, or has features of another width.
        """
        with self._turn:
            self._loaded = self._loaded or self._load(default_dtype(device))
            model = self._loaded[0].to(device)
            try:
                yield
            finally:
                model.to("cpu")

    def release(self) -> None:
        """Let go of the weights."""
        self._loaded = None

    @torch.no_grad()
    def read(self, text: str, frames: Sequence[np.ndarray], count: int, inputs: Mapping[str, np.ndarray]) -> Tensor:
        """Features ``[T, K W]``, of the layers one beside the other; the last ``text_tokens`` are the instruction's.

        Raises:
            UserError: the instruction is longer.
            ValueError: the model is not on a device, see :meth:`on`.
        """
        if self._loaded is None:
            raise ValueError("the model is loaded on a device first")
        (model, tokenizer), own = self._loaded, self._options
        words = tokenizer(text, add_special_tokens=False).input_ids if text else []
        if len(words) > own.text_tokens:
            raise UserError(
                f"the instruction has {len(words)} tokens, more than the {own.text_tokens} of method.text_tokens: "
                f"{text[:60]!r}…; shorten it"
            )
        states_KTW = self._states(model, tokenizer, words, frames, count, [*inputs.values()])
        features = states_KTW.transpose(0, 1).flatten(1)
        padding = features.new_zeros(own.text_tokens - len(words), features.shape[1])
        return torch.cat([features, padding]).cpu()

    def without_text(self, features: Tensor) -> Tensor:
        """What :meth:`read` gives for the same frames and inputs with no instruction: ``[…, T, K W]``."""
        kept = features.clone()
        kept[..., features.shape[-2] - self._options.text_tokens :, :] = 0
        return kept

    def _states(
        self,
        model: Any,
        tokenizer: Any,
        words: list[int],
        frames: Sequence[np.ndarray],
        count: int,
        images: Sequence[np.ndarray],
    ) -> Tensor:
        """Outputs of the layers, ``[K, T, W]``."""
        own, vision = self._options, model.config.vision_config
        sides = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        like = model.get_input_embeddings().weight
        video_PV, video_grid = patches(frames, self._size(*frames[0].shape[:2]), *sides)
        stills = [patches([image], self._size(*image.shape[:2]), *sides) for image in images]
        begin = prompt(
            times_of([place / RATE for place in self.places(count)], sides[2]),
            tokens_of(video_grid, sides[1]) // video_grid[0],
            [tokens_of(grid, sides[1]) for _, grid in stills],
        )
        ids_1T = torch.tensor([tokenizer(begin, add_special_tokens=False).input_ids + words], device=like.device)
        kinds_1T = (ids_1T == model.config.image_token_id) + 2 * (ids_1T == model.config.video_token_id)
        given: dict[str, Any] = {}
        if stills:
            given["pixel_values"] = torch.cat([values for values, _ in stills]).to(like)
            given["image_grid_thw"] = torch.tensor([grid for _, grid in stills], device=like.device)
        with behind_first_layer(model) if own.post_deepstack else contextlib.nullcontext() as behind:
            output = model(
                input_ids=ids_1T,
                mm_token_type_ids=kinds_1T,
                pixel_values_videos=video_PV.to(like),
                video_grid_thw=torch.tensor([video_grid], device=like.device),
                output_hidden_states=True,
                use_cache=False,
                **given,
            )
        states = [output.hidden_states[index] for index in own.read]
        if behind and 1 in own.read:
            states[0] = behind[0]
        return torch.cat(states)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return fit_size(height, width, self._options.pixels, self._options.token)

    def _config(self) -> Any:
        """The model's configuration.

        Raises:
            UserError: there is none, or it is of another model.
        """
        from transformers import AutoConfig

        where = self._place
        if not Path(where).is_dir() and (where.count("/") != 1 or where.startswith((".", "/", "~"))):
            raise UserError(f"there is no Qwen3-VL at {where}; give method.vlm a folder or a hub id")
        config = _loaded(where, lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
        if config.model_type != "qwen3_vl":
            sees = "" if hasattr(config, "vision_config") else ", which sees no images"
            raise UserError(f"method.vlm={where} is a {config.model_type}{sees}; give a Qwen3-VL")
        own, found = self._options, config.text_config.hidden_size
        token = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        if (found, token) != (own.width, own.token):
            raise UserError(
                f"method.width is {own.width} and method.token {own.token}, but the Qwen3-VL in {where} has {found} "
                f"and {token}; set them to that"
            )
        return config

    def _load(self, dtype: torch.dtype) -> tuple[Any, Any]:
        from transformers import AutoTokenizer, Qwen3VLModel

        config, where = self._config(), self._place
        how: dict[str, Any] = {"trust_remote_code": False}
        tokenizer = _loaded(where, lambda: AutoTokenizer.from_pretrained(where, **how))
        how |= {"config": config, "dtype": dtype, "use_safetensors": True}
        model: Any = _loaded(where, lambda: Qwen3VLModel.from_pretrained(where, **how))
        return model.requires_grad_(False).eval(), tokenizer


@contextlib.contextmanager
def behind_first_layer(model: Any) -> Iterator[list[Tensor]]:
    """Inside, what the second layer takes: the first one's output and the vision encoder's features added to it."""
    taken: list[Tensor] = []
    layers = model.language_model.layers
    hook = layers[1].register_forward_pre_hook(lambda layer, args: taken.append(args[0]))
    try:
        yield taken
    finally:
        hook.remove()


def _loaded(where: str, load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # transformers does not document what a damaged or missing one raises
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the vision-language model cannot be loaded from {where}: {words}; check method.vlm"
        ) from error
