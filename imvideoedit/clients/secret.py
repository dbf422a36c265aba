"""A key that some endpoints repeat in what they answer, taken out of it."""

import base64
import re
from urllib.parse import quote

SECRET_LENGTH = 8  # a shorter key is a placeholder for a server that needs none, and may be part of any word
_BEGINNING = 12  # characters of a key of at least twice that, which tell enough of it


class Hidden:
    """Finds a key in texts: as it is, its beginning, in an address (percent-encoded), and in base64.

    Args:
        key: one shorter than ``SECRET_LENGTH`` is not hidden.
    """

    def __init__(self, key: str) -> None:
        forms = [re.escape(key), re.escape(quote(key, safe="")), *map(re.escape, _in_base64(key.encode()))]
        if len(key) >= 2 * _BEGINNING:
            forms.append(re.escape(key[:_BEGINNING]) + r"[\w.~+/=*-]*")
        forms.sort(key=len, reverse=True)  # else a form would be left of which another is a part
        self._pattern = re.compile("|".join(forms), re.IGNORECASE) if len(key) >= SECRET_LENGTH else None

    def __call__(self, text: str) -> str:
        """The text with ``***`` in place of the key."""
        return self._pattern.sub("***", text) if self._pattern else text


def _in_base64(data: bytes) -> set[str]:
    """What base64 of any text that holds ``data`` holds, in both alphabets, by where in it ``data`` begins."""
    found = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        # Characters that depend on what stands before or after are left out.
        cut = whole[(0, 2, 3)[before] : len(whole) - (1 if (before + len(data)) % 3 else 0)]
        found |= {cut, cut.translate(str.maketrans("+/", "-_"))}
    return found
