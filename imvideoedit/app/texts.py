"""The page's texts and style."""

import html

from imvideoedit.app.fit_queue import Fit
from imvideoedit.app.queue import Edit

INTRO = "# Edit a video by saying what to change\nPick a video, say what to change, compare, download."
NANO_WARNING = (
    "\n\n**This model edits only its own little cartoon world, which the samples show.** "
    "Of a camera's video it makes nonsense: for that, start the app with an adapter trained for Wan."
)
_SCROLL = "?.scrollIntoView({behavior: 'smooth', block: 'nearest'})"
SHOW_STATUS = f"() => document.querySelector('#status'){_SCROLL}"
SHOW_PROBLEM = f"() => document.querySelector('#status .problem'){_SCROLL}"
"""In a browser: on a narrow screen the status is out of sight of the upload and the buttons."""
CSS = """
.gradio-container { max-width: 1280px !important; }
#status progress, #fit-status progress { width: 100%; height: 10px; }
#status .problem, #fit-status .problem { color: #b91c1c; font-weight: 600; }
.dark #status .problem, .dark #fit-status .problem { color: #fca5a5; }
#preview img, #samples img, #history img { image-rendering: pixelated; }
#samples .grid-wrap, #history .grid-wrap { min-height: 0; overflow-y: auto; padding-top: 32px; }
#samples .grid-container { grid-template-columns: repeat(auto-fill, 90px) !important; }
#history .grid-container { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) !important; }
#samples .pt-6, #history .pt-6 { padding-top: 0; }
/* Trimming would load code from elsewhere; start and end are under Settings. */
#video button[aria-label^="Trim"], #video button[aria-label^="Reset"] { display: none; }
#fit-video button[aria-label^="Trim"], #fit-video button[aria-label^="Reset"] { display: none; }
footer { display: none !important; }
"""


def message(text: str) -> str:
    """A line of the status, as HTML."""
    return f"<p>{html.escape(text)}</p>"


def problem(text: str) -> str:
    """What went wrong, in one line of HTML."""
    return f'<p class="problem" role="alert">{html.escape(" ".join(text.split()))}</p>'


def progress(edit: Edit, before: int) -> str:
    """The progress of an edit, as HTML; ``before`` is the number of edits before it."""
    if edit.cancel.is_set():
        return message("Cancelling …")
    if before:
        return message(f"Waiting: {before} edit{'s' if before > 1 else ''} before yours.")
    words = edit.phase
    if edit.phase == "Editing":
        left = edit.left()
        words += f": {edit.share:.0%}" + ("" if left is None else f", about {max(left, 1):.0f} s left")
    return f'<progress max="1" value="{edit.share:.3f}"></progress>{message(words)}'


def fit_progress(fit: Fit, before: int) -> str:
    """The progress of a fit, as HTML; ``before`` is the number of fits before it."""
    if fit.cancelled.is_set():
        return message("Cancelling: the state is being saved …")
    if before:
        return message(f"Waiting: {before} fit{'s' if before > 1 else ''} before yours.")
    if fit.state == "waiting":
        return message("Waiting: another edit is running.")
    return f'<progress max="1" value="{fit.share:.3f}"></progress>{message(fit.phase)}'
