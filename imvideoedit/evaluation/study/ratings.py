"""Raters' answers, a small file each, so that a study can be interrupted and resumed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_checked, write_checked
from imvideoedit.evaluation.study.plan import Item


@dataclass(frozen=True)
class Rating:
    """One answer.

    Attributes:
        rater, item: keys of the rater and of the question.
        methods: from left to right.
        value: 1 to 5; or for a pair 1 for the left, 0 for the right, 0.5 for neither.
        seconds: until the answer.
    """

    rater: str
    item: str
    methods: tuple[str, ...]
    value: Annotated[float, Field(ge=0, le=5)]
    seconds: Annotated[float, Field(ge=0)]


_RATING = TypeAdapter(Rating)


class Ratings:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, rating: Rating) -> None:
        """Store an answer; a later one to the same question replaces it."""
        write_checked(self._folder / rating.rater / f"{rating.item}.json", asdict(rating))

    def answered(self, rater: str) -> set[str]:
        """Items that a rater has answered."""
        return {path.stem for path in (self._folder / rater).glob("*.json")}

    def read(self, items: Sequence[Item]) -> list[Rating]:
        """All answers to these items, sorted by rater and item.

        Raises:
            UserError: a file is damaged.
        """
        known = {item.key for item in items}
        return [_read(path) for path in sorted(self._folder.glob("*/*.json")) if path.stem in known]


def _read(path: Path) -> Rating:
    fix = "remove it, and the question is asked again"
    values = read_checked(path, fix)
    try:
        rating = _RATING.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{path} is not a valid rating ({reason}); {fix}") from error
    if (rating.rater, rating.item) != (path.parent.name, path.stem):
        raise UserError(f"{path} holds the rating of another rater or item; {fix}")
    return rating
