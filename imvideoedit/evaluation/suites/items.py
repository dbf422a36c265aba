"""The test set of I2VEdit as a list of edits to make: a folder an item, of a source video and its edited first frames.

Its publishers offer ``itemN/source_and_edits/source.mp4`` beside images such as ``red_hair.png``, by whose names the
edits are told apart; nothing else describes them. Other files of an item are not read.
"""

from collections.abc import Iterator
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.video.kinds import EITHER, STILLS, VIDEOS

I2VEDIT = "i2vedit"
ORIGIN = "huggingface.co/datasets/Vicky0522/I2VEdit-pretrained-videos"
PLACE = "source_and_edits"


def read_items(folder: Path) -> list[EditRow]:
    """An edit for each edited first frame of each item.

    Raises:
        UserError: there is no item, or one lacks its video or its frames.
    """
    places = sorted(each for each in folder.glob(f"*/{PLACE}") if each.is_dir())
    if not places:
        raise UserError(f"{folder} holds no item with {PLACE}/; get {I2VEDIT} from {ORIGIN}")
    return [row for place in places for row in _rows(place)]


def _rows(place: Path) -> Iterator[EditRow]:
    files = sorted(path for path in place.iterdir() if path.is_file())
    videos = [path for path in files if path.suffix.lower() in VIDEOS + EITHER]
    sources = [path for path in videos if path.stem == "source"] or videos
    if len(sources) != 1:
        found = ", ".join(path.name for path in videos) or "none"
        raise UserError(f"{place} has no single source video (it has {found}); keep one, called source.mp4")
    frames = [path for path in files if path.suffix.lower() in STILLS]
    if not frames:
        raise UserError(f"{place} has no edited first frame beside {sources[0].name}; download its images too")
    for frame in frames:
        words = " ".join(frame.stem.replace("_", " ").replace("-", " ").split())
        name = f"{place.parent.name}_{frame.stem}"
        yield EditRow(name, sources[0], words, task="propagation", inputs={"first_frame": frame})
