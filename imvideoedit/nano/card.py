"""The model card of a nano backbone, next to its weights."""

import json
from pathlib import Path
from typing import Any

import yaml

from imvideoedit.common.files import replacing

_TEXT = """# Nano backbone

A tiny Wan for text-to-video of the nano world (procedural 64×64 scenes), trained by
`python -m imvideoedit.nano.pretrain`. A diffusers `WanPipeline` folder in half precision. It draws nano scenes only.

**Data.** {scenes}, rendered from `imvideoedit.world.scenes`, training compositions only: one
(colour, kind) pair in seven never appears. Captions are full prompts (70 %), parts of them
(20 %) or empty (10 %).

**Steps.** Autoencoder: {ae_steps}. Text-to-video: {t2v_steps} steps. Batches of {devices} process(es), seed {seed}, on
{machine}; {minutes} minutes in this run.

**Quality**, on test compositions:

| measure | value |
|---|---|
{rows}

The rows from the colours on are fractions of {samples} samples, by the pixel classifier of `imvideoedit.nano.quality`;
those of exact renderings are in brackets.

## Config

```yaml
{config}```
"""


def write_card(folder: Path, report: dict[str, Any]) -> None:
    """Write ``quality.json`` (the report itself) and ``README.md`` into ``folder``.

    Args:
        report: ``config``, ``quality``, ``seconds`` by stage, ``steps`` of text-to-video and ``machine``, as
            pretraining gathers them.
    """
    with replacing(folder / "quality.json") as path:
        path.write_text(json.dumps(report, indent=2) + "\n")
    config, quality = report["config"], report["quality"]
    drawn, exact = quality["text_to_video"]["generated"], quality["text_to_video"]["exact"]
    rows = [f"| autoencoder round trip, {f} frames | {quality[f'round_trip_psnr_{f}f']:.1f} dB |" for f in (1, 17, 49)]
    rows += [f"| {key.replace('_', ' ')} | {100 * drawn[key]:.0f} % ({100 * exact[key]:.0f} %) |" for key in drawn]
    taken = config["autoencoder"]["take_from"]
    pools = [pool for pool in config["transformer"]["pools"].values() if pool]
    text = _TEXT.format(
        scenes=", ".join(f"{pool['scenes']:,} scenes of {pool['frames']} frames" for pool in pools),
        ae_steps=f"copied from {taken}" if taken else f"{config['autoencoder']['steps']} steps",
        devices=config["devices"],
        t2v_steps=f"{report['steps']:,}",
        seed=config["seed"],
        machine=report["machine"],
        minutes=round(sum(report["seconds"].values()) / 60),
        rows="\n".join(rows),
        samples=quality["text_to_video"]["samples"],
        config=yaml.safe_dump(config, sort_keys=False),
    )
    with replacing(folder / "README.md") as path:
        path.write_text(text)
