"""Which quantizations of a transformer there are, their packages, and the bits of a weight; no torch."""

import importlib.util
import re
from pathlib import Path

from imvideoedit.common.errors import UserError

QUANTIZATIONS = ("nf4", "int8", "int8_weight_only", "fp8_weight_only")
ON_DEVICE = ("nf4", "int8")  # bitsandbytes', which diffusers loads on a GPU alone
GGUF = ".gguf"
FILES = (GGUF, ".safetensors")
EXPERT = re.compile(r"(high|low)[-_. ]?noise", re.IGNORECASE)  # in the names of such files; their tensors do not tell
# Not quantised: few weights, through which all of text, time and output go.
KEPT = ["condition_embedder", "proj_out"]
# Bits of a weight with the scales that a block of weights has, of bitsandbytes' and of some of GGUF's.
BITS = {
    "nf4": 4 + 32 / 64, "int8": 8.0, "int8_weight_only": 8.0, "fp8_weight_only": 8.0,
    "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5, "Q3_K": 3.4375, "Q2_K": 2.625,
}  # fmt: skip
LARGEST_GGUF = "Q8_0"  # by which files whose form is not known are reckoned
SCALED_ROWS = {"int8": 4, "int8_weight_only": 5, "fp8_weight_only": 4}  # bytes beside each row, at most
PACKAGES = {"nf4": "bitsandbytes", "int8": "bitsandbytes", GGUF: "gguf"}  # of the others torchao


def require_package(name: str) -> None:
    """See that the package of a quantization is installed, by its name or ``GGUF``.

    Raises:
        UserError: it is not.
    """
    package = PACKAGES.get(name, "torchao")
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{name.removeprefix('.')} needs {package}; install it by pip install 'imvideoedit[quantized]'")


def check_combination(name: str, quantization: str | None, file: Path | str | None) -> None:
    """See that a quantization and a single file of a backbone go together.

    Raises:
        UserError: they do not, or there is no such file.
    """
    if quantization is None and file is None:
        return
    if name == "nano_image_to_video":
        raise UserError(f"backbone {name} is a change of nano's weights; it takes no quantization and no file")
    if file is None:
        return
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file of a backbone at {file}; check backbone.file or --base")
    if EXPERT.search(path.name):
        raise UserError(
            f"{file} is one of the two experts of a Wan2.2 A14B by its name, and an adapter goes into one whole model; "
            "give a file of Wan2.1 14B or Wan2.2 TI2V 5B"
        )
    if path.suffix not in FILES:
        raise UserError(f"{file} is no .gguf or .safetensors; give the backbone in one of these forms")
    if path.suffix == GGUF and quantization is not None:
        raise UserError(f"{file} is quantised already; leave backbone.quantization={quantization} out")
