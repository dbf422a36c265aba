"""Where an adapter's file is: in the package, at a path, in a folder, or on the Hugging Face Hub.

Of a repository only the adapter and the masks of a fitted clip are downloaded: pictures at most, never code or pickles.
What is downloaded stays in the Hub's cache, by its commit, and is found there without a network. The token is the one
that ``hf auth login`` stores, or the environment's ``HF_TOKEN``.
"""

import os.path
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imvideoedit.clients.secret import Hidden
from imvideoedit.common.bundled import adapter_path
from imvideoedit.common.errors import Note, UserError

ADAPTER = "adapter.safetensors"
FILES = (ADAPTER, "mask/*.png")
PIPELINE = "model_index.json"  # of a folder by diffusers
_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")


class NoAdapter(UserError):
    """A repository is there, and holds no adapter."""


def find_adapter(adapter: Path | str) -> Path:
    """The file of an adapter.

    Args:
        adapter: ``bundled`` for the one in the package, a file, a folder with ``adapter.safetensors``, or, as a text,
            ``user/name`` or ``user/name@revision`` on the Hub. A revision is a branch, a tag or a commit; without one
            the main branch's newest commit is taken, and a note says which. Where there is a folder ``user`` here,
            the name is a path; with a revision it is the Hub's in any case.

    Returns:
        The file, which need not exist where a path was given.

    Raises:
        UserError: a folder or repository without an adapter, or one that is neither cached nor within reach.
    """
    if os.path.isdir(adapter):
        file = Path(adapter) / ADAPTER
        if not file.is_file():
            raise UserError(f"the folder {adapter} holds no {ADAPTER}; give an adapter's file or folder")
        return file
    named = None if isinstance(adapter, Path) or os.path.isfile(adapter) else _on_the_hub(adapter)
    return _downloaded(*named) if named else adapter_path(adapter)


def chosen(backbone: Any, adapter: Path | str | Mapping[Any, float] | None) -> tuple[Any, dict[Path, float]]:
    """A backbone as it was given, and the files of adapters with their weights, see :func:`find_adapter`.

    Where no adapter is given, one in the backbone's place is it, and the backbone None; else it is the bundled one.

    Raises:
        UserError: as :func:`find_adapter`.
    """
    if adapter is None:
        backbone, adapter = (None, backbone) if is_adapter(backbone) else (backbone, "bundled")
    files = adapter if isinstance(adapter, Mapping) else {adapter: 1.0}
    return backbone, {find_adapter(file): weight for file, weight in files.items()}


def is_adapter(name: Any) -> bool:
    """Whether a name that may be a backbone's is an adapter's: a file, a folder with one, or such a repository.

    Raises:
        UserError: a repository is neither cached nor within reach, or a file is damaged.
    """
    if not isinstance(name, Path | str):
        return False
    if os.path.isdir(name):
        return (Path(name) / ADAPTER).is_file() and not (Path(name) / PIPELINE).is_file()
    if os.path.isfile(name) and str(name).endswith(".safetensors"):
        from imvideoedit.methods.adapter_header import open_adapter

        return "format_version" in open_adapter(name).metadata
    try:
        return not isinstance(name, Path) and _on_the_hub(name) is not None and find_adapter(name).is_file()
    except NoAdapter:
        return False


def origin(file: Path) -> str | None:
    """``user/name@commit`` of a file in the Hub's cache; None of any other."""
    match file.absolute().parts:
        case [*_, repository, "snapshots", commit, _] if repository.startswith("models--"):
            return f"{repository.removeprefix('models--').replace('--', '/')}@{commit}"
    return None


def hub_error(what: str, repository: str, error: Exception) -> UserError:
    """What the Hub's client raised, in one line without the token."""
    import huggingface_hub

    try:
        words = Hidden(huggingface_hub.get_token() or "")(" ".join(str(error).split()))[:500]
    except Exception:  # of a login that went wrong, so that the token to hide is not known
        words = ""
    words = words or type(error).__name__
    return UserError(f"{what} {repository} ({words}); check the name, the network, and HF_TOKEN or `hf auth login`")


def _on_the_hub(name: str) -> tuple[str, str | None] | None:
    """Repository and revision of a name on the Hub; None of a path."""
    match = _NAME.fullmatch(name)
    if match is None or name.endswith(".safetensors"):
        return None
    is_path = not match["revision"] and os.path.isdir(os.path.dirname(name))
    return None if is_path else (match["repository"], match["revision"])


def _downloaded(repository: str, revision: str | None) -> Path:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES))
    except Exception as error:  # of the Hub, its HTTP library or the system
        raise hub_error("cannot load the adapter", repository, error) from error
    file = Path(folder) / ADAPTER
    if not file.is_file():
        raise NoAdapter(f"{repository} on the Hub holds no {ADAPTER} at {Path(folder).name}; give an adapter's name")
    warnings.warn(Note(f"the adapter is {origin(file)}"), stacklevel=3)
    return file
