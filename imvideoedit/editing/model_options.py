"""What edits: adapters and LoRAs, each with a weight, from the command line on."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from imvideoedit.common.bundled import ADAPTER
from imvideoedit.common.errors import CommandLine, UserError

MEMORY = ("auto", "full", "model", "group", "low")
Weighted = tuple[Path, float]


@dataclass(frozen=True)
class Model:
    """Files and how they are used; nothing is loaded.

    Attributes:
        adapters: at least one; the first one's settings count.
        loras: of the backbone, under the adapters.
        memory, attention, compile: as in ``EditPipeline.from_pretrained``.
    """

    adapters: tuple[Weighted, ...]
    loras: tuple[Weighted, ...] = ()
    memory: str = "auto"
    attention: str = "native"
    compile: bool = False

    def identity(self) -> str:
        """Names the tensors of all files and their weights; of a single adapter, its hash alone.

        Raises:
            UserError: a file is missing or damaged.
        """
        from imvideoedit.methods.adapter_file import adapter_hash

        def named(files: tuple[Weighted, ...]) -> str:
            return " + ".join(adapter_hash(path) + (f" x {weight:g}" if weight != 1 else "") for path, weight in files)

        return named(self.adapters) + (f" on {named(self.loras)}" if self.loras else "")


def parse_weighted(text: str) -> Weighted:
    """``FILE`` or ``FILE=WEIGHT``.

    Raises:
        UserError: the weight is no number.
    """
    name, equals, weight = text.rpartition("=")
    if not equals or Path(text).is_file():
        return Path(text), 1.0
    try:
        return Path(name), float(weight)
    except ValueError as error:
        raise UserError(f"{text}: {weight!r} is no weight; give FILE or FILE=0.5") from error


def add_model(parser: CommandLine) -> None:
    """The options that :func:`given_model` reads."""
    add, weighted = parser.add_argument, "FILE[=WEIGHT]"
    add(
        "--adapter", action="append", metavar=weighted, help="trained adapter, or several; the bundled nano one if none"
    )
    add("--lora", action="append", metavar=weighted, help="LoRA of the backbone, such as a few-step distillation")
    add("--memory", choices=MEMORY, default="auto", help="how much is on the device at a time; auto takes what fits")
    add("--attention", metavar="KERNEL", default="native", help="flash, _flash_3, sage, xformers, ..., where installed")
    add("--compile", action="store_true", help="by torch.compile: minutes at first for each size, less for each pass")


def given_model(arguments: argparse.Namespace) -> Model:
    """The model that a command line names.

    Raises:
        UserError: a file is missing, or a weight no number.
    """
    adapters = tuple(parse_weighted(text) for text in arguments.adapter or [str(ADAPTER)])
    loras = tuple(parse_weighted(text) for text in arguments.lora or ())
    for option, files in (("adapter", adapters), ("lora", loras)):
        for path, _ in files:
            if not path.is_file():
                raise UserError(f"there is no {option} at {path}; check --{option}, or train one")
    return Model(adapters, loras, arguments.memory, arguments.attention, arguments.compile)
