"""The editing page as a command; the word ``planted`` before its options has it now and then edit another's video."""

import sys
from dataclasses import replace
from pathlib import Path

from imvideoedit.app import queue
from imvideoedit.app.command import main
from imvideoedit.app.live import Edit


def plant() -> None:
    """Have every third edit take the video of another user, from its first step to its last."""
    submit, videos = queue.EditQueue.submit, list[Path]()

    def mixed_up(self: queue.EditQueue, edit: Edit) -> None:
        videos.append(edit.job.input)
        others = [path for path in videos if path != edit.job.input]
        if len(videos) % 3 == 0 and others:
            edit.job = replace(edit.job, input=others[-1])
        submit(self, edit)

    queue.EditQueue.submit = mixed_up  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1:2] == ["planted"]:
        del sys.argv[1]
        plant()
    main()
