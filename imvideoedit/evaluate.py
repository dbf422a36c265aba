"""``python -m imvideoedit.evaluate +suite=nano [adapter=FILE] [out=DIR]``: score an adapter, write ``result.json``."""

import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from imvideoedit.composition import command
from imvideoedit.errors import UserError
from imvideoedit.files import replacing
from imvideoedit.pipeline import EditPipeline


def evaluate(config: DictConfig) -> None:
    """Run the configured suite on the configured adapter.

    Raises:
        UserError: no suite was named, or the adapter or its backbone is missing.
    """
    if "suite" not in config:
        raise UserError("no suite was named; add +suite=nano")
    suite = instantiate(config.suite)
    result = suite(EditPipeline.from_pretrained(adapter=config.adapter, device=config.device))
    path = Path(config.out) / "result.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    print("the numbers:", path)


main = command("evaluate", evaluate)


if __name__ == "__main__":
    main()
