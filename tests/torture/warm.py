"""What the commands import, for a process that all of them are forked from; the commands themselves run anew."""

import imvideoedit.editing.edit_file
import imvideoedit.editing.run_jobs
import imvideoedit.evaluation.metrics.scorer
import imvideoedit.evaluation.nano.preview
import imvideoedit.evaluation.suites.benchmark
import imvideoedit.nano.pairs
import imvideoedit.training.checkpoints
import imvideoedit.training.data_module
import imvideoedit.training.dry_run
import imvideoedit.training.monitor
import imvideoedit.training.task  # noqa: F401
from tests.processes import SERVER


def warm() -> None:
    """Have ``tests.processes`` fork its commands from a process that has imported all this."""
    SERVER.set_forkserver_preload([__name__])
