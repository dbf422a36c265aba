"""``python -m imvideoedit.evaluate +suite=NAME [out=DIR]``: score an adapter or edits, and write a report."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import command
from imvideoedit.common.owner import owned


def run_suite(config: DictConfig) -> None:
    """Run the configured suite, which writes a report.

    Raises:
        UserError: no suite was named, a setting that it needs is missing, or another process writes the folder.
    """
    if "suite" not in config:
        raise UserError("no suite was named; add +suite=nano, or another of conf/suite")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"the suite needs {' and '.join(f'{key}=…' for key in missing)}; see its file in conf/suite")
    with owned(config.run_dir, "an evaluation"):
        report = instantiate(config.suite)(Path(config.run_dir))
    print("the report:", report)


main = command("evaluate", run_suite)


if __name__ == "__main__":
    main()
