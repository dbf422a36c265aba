"""The files of every network: URL, SHA-256, and place in the folder of weights."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import cache_folder

HUB = "https://huggingface.co/{repository}/resolve/{revision}/{name}"
_CLIP_TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json")
MARK = "RANDOM"
"""A file that marks a folder of weights as random: for tests, not for measuring."""


@dataclass(frozen=True)
class WeightFile:
    """One file of a network.

    Attributes:
        name: relative to the folder of all weights; the first part names the network.
        url: with the revision, if the publisher has revisions.
        sha256: 64 hex digits, or the first 8 if the publisher states only those; empty if no publisher states one, so
            that the hash is reported but not checked.
    """

    name: str
    url: str
    sha256: str = ""


def _clip(network: str, repository: str, revision: str, weights_revision: str, sha256: str) -> list[WeightFile]:
    texts = [
        WeightFile(f"{network}/{name}", HUB.format(repository=repository, revision=revision, name=name))
        for name in _CLIP_TEXTS
    ]
    name = "model.safetensors"
    url = HUB.format(repository=repository, revision=weights_revision, name=name)
    return [*texts, WeightFile(f"{network}/{name}", url, sha256)]


_L14 = "32bd64288804d66eefd0ccbe215aa642df71cc41"
_PICK = "https://huggingface.co/yuvalkirstain/PickScore_v1/resolve/main/"
_IQA = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_TORCH = "https://download.pytorch.org/models/"

NETWORKS: dict[str, list[WeightFile]] = {
    "clip_b32": _clip(
        "clip_b32",
        "openai/clip-vit-base-patch32",
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        "c237dc49a33fc61debc9276459120b7eac67e7ef",  # the same weights, converted to safetensors
        "",
    ),
    "clip_l14": _clip(
        "clip_l14",
        "openai/clip-vit-large-patch14",
        _L14,
        _L14,
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
    "dino_b16": [
        WeightFile(
            "dino_b16/dino_vitbase16_pretrain.pth",
            "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        )
    ],
    "raft": [WeightFile("raft/raft_large_C_T_V2-1bb1363a.pth", _TORCH + "raft_large_C_T_V2-1bb1363a.pth", "1bb1363a")],
    "aesthetic": [
        WeightFile(
            "aesthetic/sa_0_4_vit_l_14_linear.pth",
            "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
        )
    ],
    "musiq": [WeightFile("musiq/musiq_spaq_ckpt-358bb6af.pth", _IQA + "musiq_spaq_ckpt-358bb6af.pth", "358bb6af")],
    "pickscore": [WeightFile(f"pickscore/{name}", _PICK + name) for name in ("config.json", "model.safetensors")],
    "lpips": [
        WeightFile("lpips/alexnet-owt-7be5be79.pth", _TORCH + "alexnet-owt-7be5be79.pth", "7be5be79"),
        WeightFile("lpips/LPIPS_v0.1_alex-df73285e.pth", _IQA + "LPIPS_v0.1_alex-df73285e.pth", "df73285e"),
    ],
}


def default_folder() -> Path:
    """``IMVIDEOEDIT_WEIGHTS``, or ``imvideoedit/weights`` in the user's cache folder."""
    own = os.environ.get("IMVIDEOEDIT_WEIGHTS")
    return Path(own) if own else cache_folder() / "imvideoedit" / "weights"


def is_random(folder: Path) -> bool:
    """Whether the folder is marked as random."""
    return (folder / MARK).is_file()


def check(folder: Path, networks: Iterable[str]) -> dict[str, str]:
    """Check that the files of these networks are there and have the published hashes.

    Returns:
        File -> its SHA-256; hashes of random weights are not compared with the published ones.

    Raises:
        UserError: files are missing (the message has URL and path of each), or one has another hash.
    """
    wanted = [file for network in networks for file in NETWORKS[network]]
    missing = [file for file in wanted if not (folder / file.name).is_file()]
    if missing:
        files = "; ".join(f"{file.url} -> {folder / file.name}" for file in missing)
        raise UserError(
            f"{len(missing)} weight files are missing: {files}; put them there, or run "
            f"`python -m imvideoedit.evaluation.weights.prepare --folder {folder} --download`"
        )
    found = {file.name: hash_file(folder / file.name) for file in wanted}
    wrong = [file for file in wanted if not found[file.name].startswith(file.sha256)]
    if wrong and not is_random(folder):
        file = wrong[0]
        raise UserError(
            f"{folder / file.name} is not the published file (SHA-256 {found[file.name][:16]}…, not "
            f"{file.sha256[:16]}…); remove it and download it again from {file.url}"
        )
    return found


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
