"""Which model a transformer is: a hash of its weights, kept in the user's cache by the files they came from.

Hashing 14 billion weights takes minutes, so the hash of files is computed once. It is used only for a transformer that
still holds what was read from these very files; any other is hashed anew.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import user_cache
from imvideoedit.common.hashing import fingerprint, hash_tensors
from imvideoedit.common.json_file import read_checked, write_checked

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"}
NAMED = "_named_by_files"  # attribute of a quantised transformer: its hash
SAMPLED = 64  # values of each tensor that tell whether a transformer is the one that was hashed
FILES = (".safetensors", ".bin", ".json")
HASH = re.compile("[0-9a-f]{16}").fullmatch

Stamp = list[list[Any]]
"""Name, bytes and modification time in ns of every file of a transformer."""


def parameter_hash(transformer: WanTransformer3DModel, besides: Iterable[Tensor] = ()) -> str:
    """16 hex digits that name a transformer's weights; an installed adapter and wrappers around modules do not count.

    The values are rounded to bfloat16 first, so that one model loaded in float32 and in bfloat16 has one hash. A
    quantised one has that of its files, see :func:`name_by_files`.

    Args:
        besides: parameters that are not the backbone's either, such as those a method trains.

    Raises:
        ValueError: the transformer is on the meta device.
    """
    named: str | None = vars(transformer).get(NAMED)
    return named if named is not None else hash_tensors(own_parameters(transformer, besides), torch.bfloat16)


def name_by_files(transformer: WanTransformer3DModel, files: Path | None, quantization: str | None) -> None:
    """Give a quantised transformer a hash of what it was loaded from: its values differ from device to device.

    Args:
        files: a folder or a file; None where they are not known, which makes no hash.
        quantization: that it was loaded with; None where the file brings its own.
    """
    if files is not None:
        named = hashlib.sha256(f"{fingerprint(files)} {quantization}".encode()).hexdigest()
        transformer.__dict__[NAMED] = named[:16]


def own_parameters(transformer: Any, besides: Iterable[Tensor] = ()) -> dict[str, Tensor]:
    """The backbone's parameters by the names they have without an adapter, compilation or sharding."""
    others = {id(parameter) for parameter in besides}
    return {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): parameter
        for name, parameter in transformer.named_parameters()
        if ".processor." not in name and id(parameter) not in others
    }


@dataclass(frozen=True, eq=False, repr=False)
class Origin:
    """The files that a transformer was loaded from, and its parameters as they were then.

    Attributes:
        folder: of the files.
        stamp: of the files.
        dtype: that they were loaded in.
        parameters: by name.
        versions: of the parameters: PyTorch counts how often a tensor is changed in place.
        sample: of their values, for changes that it does not count, such as by ``.data``.
    """

    folder: str
    stamp: Stamp
    dtype: str
    parameters: dict[str, Tensor]
    versions: dict[str, int]
    sample: str

    @classmethod
    def of(cls, place: str, revision: str | None, load: Callable[[], Any]) -> "tuple[Any, Origin | None]":
        """Load a transformer; its origin is None where its files are not known or changed meanwhile.

        Args:
            place, revision: as :func:`imvideoedit.wan.locations.locate` gives them.
        """
        before = _stamp(folder_of(place, revision))
        transformer = load()
        folder = folder_of(place, revision)  # of a hub's repository, known once it is loaded
        stamp, parameters = _stamp(folder), own_parameters(transformer)
        uncounted = any(parameter.is_inference() for parameter in parameters.values())
        if folder is None or not stamp or before not in (None, stamp) or uncounted:
            return transformer, None
        versions = {name: parameter._version for name, parameter in parameters.items()}
        place, sample = str(folder.resolve()), _sample(parameters)
        return transformer, cls(place, stamp, str(transformer.dtype), parameters, versions, sample)

    def holds(self, transformer: WanTransformer3DModel, besides: Iterable[Tensor] = ()) -> bool:
        """Whether all of the transformer's own parameters are loaded ones, and none was changed since."""
        loaded = {id(parameter) for parameter in self.parameters.values()}
        own = {id(parameter) for parameter in own_parameters(transformer, besides).values()}
        versions = {name: parameter._version for name, parameter in self.parameters.items()}
        return own <= loaded and versions == self.versions and _sample(self.parameters) == self.sample

    def parameter_hash(self, transformer: WanTransformer3DModel, besides: Iterable[Tensor] = ()) -> str:
        """As :func:`parameter_hash`, from the cache where it holds these files."""
        besides = list(besides)
        if not self.holds(transformer, besides):
            return parameter_hash(transformer, besides)
        try:
            path = user_cache() / "backbones.json"
        except UserError:  # a user without a folder keeps nothing
            return hash_tensors(self.parameters, torch.bfloat16)
        key = f"{self.folder} {self.dtype}"
        known = _read(path)
        match known.get(key):
            case {"files": self.stamp, "sample": self.sample, "hash": str(found)} if HASH(found):
                return found
        found = hash_tensors(self.parameters, torch.bfloat16)
        known[key] = {"files": self.stamp, "sample": self.sample, "hash": found}
        try:
            write_checked(path, known, indent=1)
        except OSError as error:
            logging.getLogger(__name__).warning("the hash of %s is not kept (%s)", self.folder, error)
        return found


def folder_of(place: str, revision: str | None) -> Path | None:
    """Of a transformer's files; None where they are of the hub and not in its cache."""
    if Path(place).is_dir():
        return Path(place) / "transformer"
    found = huggingface_hub.try_to_load_from_cache(place, "transformer/config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _stamp(folder: Path | None) -> Stamp | None:
    if folder is None or not folder.is_dir():
        return None
    found = ((path, path.stat()) for path in sorted(folder.iterdir()) if path.suffix in FILES and path.is_file())
    return [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in found]


def _sample(parameters: Mapping[str, Tensor]) -> str:
    """A hash of some values of each tensor."""

    def some(weight: Tensor) -> Tensor:
        flat = weight.detach().reshape(-1)
        return flat[:: max(len(flat) // SAMPLED, 1)][:SAMPLED]

    return hash_tensors({name: some(weight) for name, weight in parameters.items()}, torch.bfloat16)


def _read(path: Path) -> dict[str, Any]:
    """What is kept; nothing where the file is missing or damaged."""
    try:
        return read_checked(path)
    except UserError:
        return {}
