"""``python -m imvideoedit.evaluate +suite=nano [adapter=FILE] [out=DIR]``: score an adapter, write a report."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from imvideoedit.composition import command
from imvideoedit.errors import UserError
from imvideoedit.evaluation.report import report
from imvideoedit.pipeline import EditPipeline


def evaluate(config: DictConfig) -> None:
    """Run the configured suite on the configured adapter, and write the report on it.

    Raises:
        UserError: no suite was named, or the adapter or its backbone is missing.
    """
    if "suite" not in config:
        raise UserError("no suite was named; add +suite=nano")
    suite = instantiate(config.suite)
    out = Path(config.folder)
    suite(EditPipeline.from_pretrained(adapter=config.adapter, device=config.device), out)
    page = report(out, out / "report")
    print("the numbers:", out / "result.json")
    print("the report:", page)


main = command("evaluate", evaluate)


if __name__ == "__main__":
    main()
