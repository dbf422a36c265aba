"""What there is to edit in a folder: whatever opens as a video or an image."""

from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.video.containers import opened, video_stream
from imvideoedit.video.kinds import MEDIA, STILLS, kind_of

NAMED = 3  # of the files that are skipped


def list_media(folder: Path) -> tuple[list[Path], str]:
    """The videos and images of a folder in the order of their names, and one line on what else is in it, if anything.

    Hidden files and subfolders are skipped; other files are where they do not open as video or image.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    files = [path for path in found if not path.is_dir()]
    media = [path for path in files if not path.name.startswith(".") and _is_medium(path)]
    skipped = [path.name for path in files if path not in set(media)]
    return media, _note(folder, skipped, len(found) - len(files))


def _is_medium(path: Path) -> bool:
    # What has one of these endings is meant to be edited, so that it is an error where it does not open.
    return path.name.lower().endswith(MEDIA) or _opens(path)


def _opens(path: Path) -> bool:
    try:
        with opened(path) as container:
            return video_stream(container) is not None
    except UserError:
        return False


def _note(folder: Path, skipped: list[str], folders: int) -> str:
    parts = []
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        files = "file that is" if len(skipped) == 1 else "files that are"
        parts.append(f"{len(skipped)} {files} no video or image, or hidden ({', '.join(skipped[:NAMED])}{more})")
    if folders:
        parts.append(f"{folders} {'folder' if folders == 1 else 'folders'}")
    return f"skipped in {folder}: {' and '.join(parts)}" if parts else ""


def is_still(path: Path) -> bool:
    """Whether a file is a single image, by its content; by its ending where it is missing or damaged."""
    try:
        return kind_of(path) == "still"
    except (UserError, OSError):  # such as a name that is too long
        return path.suffix.lower() in STILLS
