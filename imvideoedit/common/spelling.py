"""Names of files in lists, as the file system spells them."""

import os.path
import unicodedata
from pathlib import Path


def as_spelled(folder: Path, name: str) -> str:
    """The spelling of ``name`` that there is in ``folder``; the name as it is where there is none.

    Lists of Windows have backslashes between folders, and systems code letters with accents in two ways, as one
    character or as two, which read alike.
    """
    for slashes in (name, name.replace("\\", "/")):
        for spelled in (slashes, unicodedata.normalize("NFC", slashes), unicodedata.normalize("NFD", slashes)):
            # Unlike pathlib, os.path takes texts of any length.
            if os.path.exists(os.path.join(folder, spelled)):
                return spelled
    return name
