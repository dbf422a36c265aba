"""What the commands import, for a process that all of them are forked from; the commands themselves run anew."""

from tests.processes import SERVER

ROOMS = (
    *("imvideoedit.editing.edit_file", "imvideoedit.editing.run_jobs", "imvideoedit.nano.pairs"),
    *("imvideoedit.training.data_module", "imvideoedit.training.task", "imvideoedit.training.dry_run"),
    *("imvideoedit.training.checkpoints", "imvideoedit.training.monitor", "imvideoedit.training.export"),
    *("imvideoedit.evaluation.suites.benchmark", "imvideoedit.evaluation.metrics.scorer", "lightning"),
    *("data_recipes.nano", "data_recipes.filtering", "data_recipes.engine", "data_recipes.card", "hydra.main"),
)


def warm() -> None:
    """Have ``tests.processes`` fork its commands from a process that has imported all this."""
    SERVER.set_forkserver_preload(["tests.processes", *ROOMS])
