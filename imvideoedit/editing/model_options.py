"""The model's command-line options: adapters and LoRAs, each with a weight, and how they run."""

import argparse
import functools
import math
import os.path
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imvideoedit.common.bundled import ADAPTER
from imvideoedit.common.errors import CommandLine, UserError
from imvideoedit.common.files import content_hash
from imvideoedit.methods.adapter_hub import find_adapter
from imvideoedit.wan.quantizations import QUANTIZATIONS

OFFLOAD_LEVELS = ("full", "model", "group", "low")
UNITS = {"MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}
WeightedFile = tuple[Path, float]


@dataclass(frozen=True)
class ModelOptions:
    """Files and how they run; nothing is loaded.

    Attributes:
        adapters: at least one; the sampling config is the first one's.
        loras: of the backbone, under the adapters.
        memory, attention, compile: as in ``EditPipeline.from_pretrained``.
        base, quantization: of the backbone, as ``backbone`` and ``quantization`` there; the adapter's own if None.
        first_frame_adapter: makes first frames that the adapters need and that are not given; None for the bundled
            one, where it is of the same backbone.
    """

    adapters: tuple[WeightedFile, ...]
    loras: tuple[WeightedFile, ...] = ()
    memory: str = "auto"
    attention: str = "native"
    compile: bool = False
    first_frame_adapter: Path | None = None
    base: str | None = None
    quantization: str | None = None

    @functools.cached_property
    def identity(self) -> str:
        """Hashes of all files' tensors, with the weights; of a single adapter, its hash alone.

        Raises:
            UserError: a file is missing or damaged.
        """
        from imvideoedit.editing.lora_file import lora_hash
        from imvideoedit.methods.adapter_file import adapter_hash

        return self._named(adapter_hash, lora_hash)

    @functools.cached_property
    def contents(self) -> str:
        """As ``identity``, of all that is in the files: also headers, which hold settings of sampling and scales.

        Raises:
            UserError: a file is missing or unreadable.
        """
        try:
            return self._named(content_hash, content_hash) + self._first_frame()
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from error

    def _first_frame(self) -> str:
        """The editor of first frames, where one may be at work."""
        from imvideoedit.editing.first_frame import chosen_editor, needs_first_frame

        editor = chosen_editor(self.adapters[0][0], self.first_frame_adapter)
        return f" after {content_hash(editor)}" if editor and needs_first_frame(self.adapters[0][0]) else ""

    def _named(self, of_adapter: Callable[[Path], str], of_lora: Callable[[Path], str]) -> str:
        """The files' hashes with their weights, to the last digit."""

        def named(files: tuple[WeightedFile, ...], digest: Callable[[Path], str]) -> str:
            return " + ".join(digest(path) + (f" x {weight!r}" if weight != 1 else "") for path, weight in files)

        loras = f" on {named(self.loras, of_lora)}" if self.loras else ""
        return named(self.adapters, of_adapter) + self._backbone() + loras

    def _backbone(self) -> str:
        """Another backbone than the adapter's, by what is in its files, where they are here, and how it is loaded."""
        from imvideoedit.common.hashing import fingerprint

        base = fingerprint(self.base) if self.base and os.path.exists(self.base) else self.base
        return (f" in {base}" if base else "") + (f" as {self.quantization}" if self.quantization else "")


def parse_weighted(text: str) -> WeightedFile:
    """``FILE`` or ``FILE=WEIGHT``.

    Raises:
        UserError: the weight is no finite number.
    """
    name, equals, weight = text.rpartition("=")
    if not equals or os.path.isfile(text):
        return Path(text), 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{text}: {weight!r} is no weight; give FILE or FILE=0.5")
    return Path(name), number


def stated_bytes(memory: str) -> int | None:
    """Bytes of an amount such as ``20GiB``; None where it is ``auto`` or an offload level.

    Raises:
        UserError: it is none of these.
    """
    if memory in ("auto", *OFFLOAD_LEVELS):
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG]i?B)", memory, re.IGNORECASE)
    if found is None:
        raise UserError(f"memory is {memory!r}; choose auto, {', '.join(OFFLOAD_LEVELS)}, or an amount such as 20GiB")
    return round(float(found[1]) * UNITS[found[2].upper()])


def add_model_options(parser: CommandLine) -> None:
    """Add the options that :func:`parse_model_options` reads."""
    add, weighted = parser.add_argument, "FILE[=WEIGHT]"
    adapter = "trained adapter: file, folder or user/name[@revision] on the Hub; repeat to mix; default: bundled (nano)"
    add("--adapter", action="append", metavar=weighted, help=adapter)
    add("--first-frame-adapter", metavar="FILE", help="makes a first frame that is needed and not given")
    add("--base", metavar="NAME", help="backbone of the adapter's kin: a folder, hub id, .gguf or .safetensors")
    add("--quantization", choices=("none", *QUANTIZATIONS), help="of the backbone; default: as the adapter was trained")
    add("--lora", action="append", metavar=weighted, help="LoRA of the backbone, such as a few-step distillation")
    add("--memory", default="auto", metavar="LEVEL|AMOUNT", help=f"auto, {', '.join(OFFLOAD_LEVELS)}, or such as 20GiB")
    add("--attention", metavar="KERNEL", default="native", help="flash, _flash_3, sage, xformers, ..., where installed")
    add("--compile", action="store_true", help="torch.compile: the first pass of each size takes minutes")


def parse_model_options(arguments: argparse.Namespace) -> ModelOptions:
    """The options of a command line.

    Raises:
        UserError: a file is missing or cannot be downloaded, or a weight is no number.
    """
    given = [parse_weighted(text) for text in arguments.adapter or [str(ADAPTER)]]
    adapters = tuple((find_adapter(str(name)), weight) for name, weight in given)
    loras = tuple(parse_weighted(text) for text in arguments.lora or ())
    maker = arguments.first_frame_adapter and find_adapter(arguments.first_frame_adapter)
    makers = () if maker is None else ((maker, 1.0),)
    for option, files in (("adapter", adapters), ("lora", loras), ("first-frame-adapter", makers)):
        for path, _ in files:
            if not os.path.isfile(path):  # unlike pathlib, takes names of any length
                raise UserError(f"there is no {option} at {path}; check --{option}, or train one")
    stated_bytes(arguments.memory)  # whether it is one
    how = arguments.memory, arguments.attention, arguments.compile
    return ModelOptions(adapters, loras, *how, maker, arguments.base, arguments.quantization)
