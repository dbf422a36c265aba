"""The editing page as a command; the word ``planted`` before its options has it now and then edit another's video."""

import sys
from dataclasses import replace
from typing import Any

from imvideoedit.app import queue
from imvideoedit.app.command import main
from imvideoedit.editing.job import Job


def plant() -> None:
    """Have every third edit read the video of the one before."""
    whole, jobs = queue.edit_file, list[Job]()

    def edit_file(pipeline: Any, job: Job, *rest: Any) -> Any:
        jobs.append(job)
        if len(jobs) % 3 == 0:
            job = replace(job, input=jobs[-2].input)
        return whole(pipeline, job, *rest)

    queue.edit_file = edit_file  # type: ignore[assignment]


if __name__ == "__main__":
    if sys.argv[1:2] == ["planted"]:
        del sys.argv[1]
        plant()
    main()
