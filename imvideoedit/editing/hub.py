"""An adapter as a folder with a model card, and as a repository of the Hugging Face Hub.

The folder holds what :func:`imvideoedit.methods.adapter_hub.find_adapter` reads, and for people a ``README.md`` and,
where they lie beside the adapter as training and scoring put them, scores and pictures.
"""

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub

from imvideoedit.common.errors import Note, UserError
from imvideoedit.common.files import replacing
from imvideoedit.editing.fitted_clip import CLIP
from imvideoedit.editing.model_card import MARKER, SCORES, is_local, model_card
from imvideoedit.editing.sampling_config import SamplingConfig, adapters_own
from imvideoedit.methods.adapter_file import read_state, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader, read_header
from imvideoedit.methods.adapter_hub import ADAPTER, FILES, hub_error, origin

CARD = "README.md"
PICTURES = ("scores/sheet.png", "scores/strips/*.png")
PREVIEWS = "previews/*.png"  # of training; the newest is taken


class Shared:
    """Saves an ``EditPipeline``'s adapter, and uploads it.

    Attributes:
        adapters: files that it was loaded from, with a weight each; empty where its method was made here.
        loras: that were added to the backbone under them.
    """

    adapters: Mapping[Path, float] = {}
    loras: Mapping[Path, float] = {}
    backbone: Any
    method: Any
    config: SamplingConfig
    title: str

    def came_from(self, adapters: Mapping[Path, float], loras: Mapping[Path, float]) -> None:
        """Say which files the pipeline was loaded from."""
        self.adapters, self.loras = dict(adapters), dict(loras)
        self.title = f"the adapter {' + '.join(origin(path) or path.name for path in adapters)}"

    def save_pretrained(self, folder: Path | str, license: str | None = None) -> Path:
        """Write ``adapter.safetensors``, its model card, and what lies beside the adapter of scores and pictures.

        ``EditPipeline.from_pretrained`` loads the folder. The adapter is the very file that was loaded, unless the
        pipeline's ``config`` was changed, which goes into its header. A ``README.md`` that was not written here stays.

        Args:
            license: of the adapter, as the Hub names it, such as ``apache-2.0``; the card names none if None.

        Returns:
            The folder.

        Raises:
            UserError: several adapters are at work, or LoRAs, which such a file does not hold; or a file is damaged.
        """
        return self._save(Path(folder), Path(folder).absolute().name, license)

    def push_to_hub(
        self,
        repository: str,
        private: bool | None = None,
        license: str | None = None,
        commit_message: str = "Upload adapter",
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to a model repository, created if missing.

        A ``README.md`` there that was not written here stays. The token is that of ``hf auth login``, or the
        environment's ``HF_TOKEN``.

        Args:
            repository: ``user/name``.
            private: of a new repository; None for the Hub's own default: public, unless the organisation's is another.
            license: see :meth:`save_pretrained`.

        Returns:
            ``user/name@commit``, which ``EditPipeline.from_pretrained`` and ``--adapter`` load.

        Raises:
            UserError: as :meth:`save_pretrained`, no such name, or the Hub cannot be reached or denies access.
        """
        if repository.count("/") != 1:
            raise UserError(f"{repository!r} names no repository; give user/name")
        with tempfile.TemporaryDirectory() as temporary:
            folder = self._save(Path(temporary), repository, license)
            try:
                return _uploaded(folder, repository, private, commit_message)
            except Exception as error:  # of the Hub, its HTTP library or the system
                raise hub_error("cannot push to", repository, error) from error

    def _save(self, folder: Path, name: str, license: str | None) -> Path:
        if len(self.adapters) > 1 or list(self.adapters.values()) not in ([], [1]):
            raise UserError("several adapters, or one with a weight, make no adapter file; save one that is used alone")
        if self.loras:
            raise UserError(f"an adapter file does not hold {', '.join(map(str, self.loras))}; load it without a LoRA")
        source = next(iter(self.adapters), None)
        self._write(folder / ADAPTER, source)
        header = read_header(folder / ADAPTER)
        if is_local(header):
            told = f"{name} names its backbone by a folder, {header.backbone['name']}; who loads it gives backbone="
            warnings.warn(Note(told), stacklevel=3)
        pictures = [] if source is None else _copied(source.parent, folder, masks=CLIP in header.training)
        card = folder / CARD
        if not card.is_file() or MARKER in card.read_text(encoding="utf-8", errors="replace"):
            with replacing(card) as path:
                path.write_text(model_card(folder, ADAPTER, pictures, name, license), encoding="utf-8")
        return folder

    def _write(self, path: Path, source: Path | None) -> None:
        sampler = vars(self.config)
        if source is None:
            header = AdapterHeader.describe(self.method, self.backbone, {"sampler": sampler})
            save_adapter(self.method, path, header)
            return
        header = read_header(source)
        if adapters_own(header.training, source) != self.config:
            header = replace(header, training=header.training | {"sampler": sampler})
            save_adapter(self.method, path, header, read_state(source))
        else:
            _copy(source, path)


def _uploaded(folder: Path, repository: str, private: bool | None, message: str) -> str:
    api = huggingface_hub.HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if api.file_exists(repository, CARD):
        there = Path(api.hf_hub_download(repository, CARD)).read_text(encoding="utf-8", errors="replace")
        files = [file for file in files if file != CARD or MARKER in there]
    operations = [huggingface_hub.CommitOperationAdd(file, folder / file) for file in files]
    commit = api.create_commit(repository, operations, commit_message=message)
    return f"{repository}@{commit.oid}"


def _copied(source: Path, folder: Path, masks: bool) -> list[str]:
    """Copy what lies beside an adapter, and the ``masks`` of a clip that it was fitted to; the pictures' names."""
    pictures = [path for pattern in PICTURES for path in sorted(source.glob(pattern))]
    pictures += sorted(source.glob(PREVIEWS))[-1:]
    others = [path for pattern in (SCORES, *(FILES[1:] if masks else ())) for path in source.glob(pattern)]
    for path in (*pictures, *others):
        _copy(path, folder / path.relative_to(source))
    return [path.relative_to(source).as_posix() for path in pictures]


def _copy(source: Path, path: Path) -> None:
    """Copy a file, unless it is there already."""
    if path.exists() and path.samefile(source):
        return
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)
