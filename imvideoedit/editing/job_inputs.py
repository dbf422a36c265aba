"""A job's inputs besides video and text: from a command line or a row, and what they contain.

Which of them are texts and which files, only the method knows, which is not loaded here.
"""

import hashlib
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import check_name
from imvideoedit.editing.job_rows import check_text
from imvideoedit.video.masks import BOX, list_images, parse_box

MASK = "mask"
FILE_INPUTS = ("first_frame", MASK, "reference")  # have an option and a column of their own, and are never texts


@dataclass(frozen=True)
class Given:
    """An input as it is given: a text, a mask's box, or a file's or folder's name relative to ``base``."""

    text: str
    base: Path = Path()

    @property
    def path(self) -> Path:
        return self.base / self.text

    def is_file(self, name: str) -> bool:
        """Whether the input of that name is a file or folder, as far as can be seen without the method."""
        if name == MASK and self.text.startswith(BOX):
            return False
        # Unlike pathlib, os.path takes texts of any length.
        return name in FILE_INPUTS or os.path.exists(os.path.join(self.base, self.text))


def as_given(inputs: Mapping[str, Given | Path | str]) -> dict[str, Given]:
    """Inputs of a job, checked as far as their texts show.

    Raises:
        UserError: a name or a value is none or none that can be written, or the mask's box is none.
    """
    found = {}
    for name, value in inputs.items():
        if not name.isidentifier():
            raise UserError(f"{name!r} is no input's name; give NAME=FILE, such as first_frame=a.png")
        given = value if isinstance(value, Given) else Given(str(value))
        if not isinstance(value, Given | Path | str) or not given.text:
            raise UserError(f"the input {name} is {value!r}; give a file or a text")
        if name == MASK and given.text.startswith(BOX):
            parse_box(given.text)
        if given.is_file(name):
            check_name(given.path)
        else:
            check_text(name, given.text)
        found[name] = given
    return found


def read_inputs(pairs: Iterable[tuple[str, object]], base: Path = Path()) -> dict[str, Given]:
    """Inputs from names and texts; files are relative to ``base``.

    Raises:
        UserError: a name or value is none, or a name is there twice.
    """
    found: dict[str, Given] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"the input {name} is given twice; leave one out")
        if not isinstance(value, str):
            raise UserError(f"the input {name} is {value!r}; give a file or a text")
        found[name] = Given(value, base)
    return as_given(found)


def check_files(inputs: Mapping[str, Given], output: Path) -> None:
    """See that the files are there, and that the output replaces none of them.

    Raises:
        UserError: names the input.
    """
    for name, given in inputs.items():
        if not given.is_file(name):
            continue
        if not os.path.exists(given.path):
            raise UserError(f"there is nothing at {given.path}; check the input {name}")
        if given.path.resolve() == output.resolve():
            raise UserError(f"the output {output} is the input {name}; give another output")


def describe_inputs(inputs: Mapping[str, Given]) -> dict[str, str]:
    """What the inputs contain, by name: a text as it is, a hash of a file's bytes, of a folder those of its images.

    Raises:
        UserError: a file is missing or unreadable.
    """
    found = {}
    for name, given in inputs.items():
        if not given.is_file(name):
            found[name] = given.text
            continue
        # What has no option of its own may be a text, although a file has that name.
        text = "" if name in FILE_INPUTS else f"{given.path.name} "
        found[name] = f"{text}sha256 {_digest(name, given.path)}"
    return found


def _digest(name: str, path: Path) -> str:
    digest = hashlib.sha256()
    try:
        for file_path in list_images(path) if path.is_dir() else [path]:
            with file_path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        what = f"there is nothing at {path}" if gone else f"{path} cannot be read ({error.strerror})"
        raise UserError(f"{what}; check the input {name}") from error
    return digest.hexdigest()[:16]
