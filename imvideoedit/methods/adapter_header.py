"""The header of an adapter file: what it holds, in which backbone it was trained, and what it takes.

Every entry is a JSON string in the metadata of the safetensors: ``format_version``, ``package_version``, ``method``,
``config``, ``inputs``, ``backbone`` and ``training``. Format 1 had no ``inputs``; its methods took none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

import imvideoedit
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.common.tensor_file import TensorFile
from imvideoedit.edit_batch import Input
from imvideoedit.methods.base import Method
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.kinship import architecture, sketch

FORMAT_VERSION = 2
# Of ``training``, which is free, so that earlier versions read such files, too: hashes of the header and the tensors.
CHECKS = "checks"
FIX = "copy or train it again"
_ENTRIES = {"method": str, "config": dict, "backbone": dict, "training": dict, "inputs": list, "package_version": str}
_BACKBONE = {"name": str, "revision": str | None, "parameter_hash": str, "quantization": str | None, "file": str | None}
_KIN = {"architecture": dict | None, "sketch": str | None}  # which files of earlier versions lack
_INPUT = {"name": str, "kind": str, "encoder": str, "required": bool}  # what a header says of an input


@dataclass(frozen=True)
class AdapterHeader:
    """The header of a file.

    Attributes:
        method: its name.
        config: arguments that rebuild the method.
        backbone: ``name``, ``revision`` and ``parameter_hash`` of the transformer it was trained in; ``quantization``
            and ``file`` where it was loaded with them; ``architecture`` and ``sketch``, by which its kin are known.
        training: free summary: steps, seed, area, defaults for sampling and the like.
        inputs: what the method takes besides source and text: name, kind, encoder and whether it is required.

    Raises:
        TypeError: an entry has another type; it begins with the entry.
    """

    method: str
    config: dict[str, Any]
    backbone: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    package_version: str = imvideoedit.__version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for entry, value, kind in self._kinds():
            if not isinstance(value, kind):
                raise TypeError(f"{entry}, which must not be {json.dumps(value, default=str)[:80]}")

    def _kinds(self) -> Iterator[tuple[str, Any, Any]]:
        """Entries with values and types, those of a mapping after it."""
        yield from ((entry, getattr(self, entry), kind) for entry, kind in _ENTRIES.items())
        yield from ((f"backbone.{key}", self.backbone.get(key), kind) for key, kind in (_BACKBONE | _KIN).items())
        yield "training.sampler", self.training.get("sampler", {}), dict
        for declared in self.inputs:
            yield "inputs", declared, dict
            yield from ((f"inputs.{key}", declared.get(key), kind) for key, kind in _INPUT.items())

    @classmethod
    def describe(
        cls, method: Method, backbone: Backbone, training: dict[str, Any], backbone_hash: str | None = None
    ) -> "AdapterHeader":
        """The header of a method that is installed in a backbone.

        Args:
            backbone_hash: the backbone's before it was changed, of a method that changes it.

        Raises:
            ValueError: that is not given.
        """
        changed = method.trains_backbone or method.drops_weights
        if changed and backbone_hash is None:
            raise ValueError(f"{method.name} has changed the backbone; say what it was before")
        parameters = backbone_hash or backbone.parameter_hash(method.parameters())
        identity: dict[str, Any] = {"name": backbone.name, "revision": backbone.revision, "parameter_hash": parameters}
        how = {"quantization": backbone.quantization, "file": backbone.file}
        identity |= {key: value for key, value in how.items() if value is not None}
        if not changed:  # whose weights are in the file, or not there
            transformer = backbone.transformer
            identity |= {"architecture": architecture(transformer), "sketch": sketch(transformer)}
        return cls(method.name, method.config(), identity, training, describe_inputs(method.inputs))


def describe_inputs(inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """Inputs as a header lists them: name, kind, encoder and whether an edit needs them."""
    return [{key: getattr(each, key) for key in _INPUT} for each in inputs]


def read_header(path: Path | str) -> AdapterHeader:
    """Read the header of an adapter file.

    Raises:
        UserError: missing, damaged, no adapter, or of a newer format.
    """
    metadata = open_adapter(path).metadata
    no_adapter = f"{path} is no imvideoedit adapter: its header"
    if "format_version" not in metadata:
        raise UserError(f"{no_adapter} lacks format_version; give an adapter, or a LoRA by --lora")
    entries = {
        key: parse_json(value, f"{no_adapter}'s {key}", object, "train or export it again")
        for key, value in metadata.items()
    }
    try:
        version: Any = entries["format_version"]
        if type(version) is not int or version < 1:
            raise TypeError(f"format_version, which must not be {json.dumps(version)[:80]}")
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} has adapter format {version}, this imvideoedit reads up to {FORMAT_VERSION}; upgrade it"
            )
        if version > 1 and "inputs" not in entries:
            raise KeyError("inputs")
        header = AdapterHeader(**entries)
    except (KeyError, TypeError) as error:
        raise UserError(f"{no_adapter} lacks or garbles {error}; train or export it again") from error
    if (checks := header.training.pop(CHECKS, None)) is not None:
        if not isinstance(checks, dict) or checks.get("header") != header_hash(header):
            raise UserError(f"{path} is damaged: its header is not the one that was written; {FIX}")
    return header


def header_hash(header: AdapterHeader) -> str:
    """16 hex digits that name all that a header says."""
    return xxhash.xxh3_64_hexdigest(json.dumps(asdict(header), sort_keys=True).encode())


def tensors_hash(path: Path | str, metadata: Mapping[str, str]) -> str | None:
    """The hash of an adapter's tensors when it was written; None where its header does not say, as of earlier versions.

    Raises:
        UserError: the header is damaged there.
    """
    try:
        training = parse_json(metadata.get("training", "{}"), f"the training of {path}", object, FIX)
        return training[CHECKS]["tensors"] if CHECKS in training else None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: its header does not say what tensors it has; {FIX}") from error


def named(inputs: Sequence[Mapping[str, Any]]) -> str:
    """Such as ``first_frame (image, vae) and mask (mask, raw, optional)``."""
    told = [f"{each['name']} ({', '.join(_qualities(each))})" for each in inputs]
    return " and ".join(told) if told else "no inputs"


def _qualities(declared: Mapping[str, Any]) -> list[str]:
    return [declared["kind"], declared["encoder"], *([] if declared["required"] else ["optional"])]


def open_adapter(path: Path | str) -> TensorFile:
    """An adapter's file.

    Raises:
        UserError: missing or damaged.
    """
    return TensorFile(path, "adapter file", FIX)
