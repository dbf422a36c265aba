"""What raters said, a small file each, so that a study can be left and taken up at any time."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.evaluation.study.plan import Item

LIKERT = (1, 5)


@dataclass(frozen=True)
class Rating:
    """One answer.

    Attributes:
        rater: key of who gave it.
        item: key of the question.
        methods: that were shown, from left to right.
        value: 1 to 5; or of a pair 1 for the left, 0 for the right, 0.5 for neither.
        seconds: it took.
    """

    rater: str
    item: str
    methods: tuple[str, ...]
    value: float
    seconds: float


class Ratings:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, rating: Rating) -> None:
        """Keep an answer; another one to the same question takes its place."""
        with replacing(self._folder / rating.rater / f"{rating.item}.json") as path:
            path.write_text(json.dumps(asdict(rating)))

    def answered(self, rater: str) -> set[str]:
        """Items that a rater has answered."""
        return {path.stem for path in (self._folder / rater).glob("*.json")}

    def read(self, items: Sequence[Item]) -> list[Rating]:
        """All answers to some items, in order of rater and item.

        Raises:
            UserError: a file is damaged.
        """
        known = {item.key for item in items}
        return [_read(path) for path in sorted(self._folder.glob("*/*.json")) if path.stem in known]


def _read(path: Path) -> Rating:
    try:
        values = json.loads(path.read_text())
        return Rating(**{**values, "methods": tuple(values["methods"])})
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(f"{path} is no whole rating ({error}); remove it, and it is asked again") from error
