"""The card of an exported data set: its content, its origin, plots and samples."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from wordcloud import STOPWORDS, WordCloud

from data_recipes.rows import CRITERIA
from data_recipes.shards import MANIFEST, read_manifest
from imvideoedit.common.escaping import markdown_code, markdown_text
from imvideoedit.video.pictures import open_picture
from imvideoedit.video.pngs import write_picture
from imvideoedit.world.tasks import TASKS

matplotlib.use("Agg")

SAMPLES = 3  # of each task
SAMPLE_SIDE = 256  # most pixels of a sample's longer side; small ones are enlarged by whole factors
SCENES_SHOWN = 30
CLOUD_PROMPTS = 20_000  # prompts that the word cloud is drawn from, at most
STAGES = ("prompts", "synthesize", "filter", "review")


@dataclass
class Tally:
    """Counts over all rows, in one pass."""

    splits: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    environments: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    scores: dict[str, Counter[float]] = field(default_factory=lambda: {name: Counter() for name in CRITERIA})
    words: Counter[str] = field(default_factory=Counter)
    scenes: set[str] = field(default_factory=set)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, split: str, row: dict[str, Any]) -> None:
        """Count a row."""
        self.splits[split] += 1
        self.tasks[row["task"]] += 1
        self.environments[row["environment"]] += 1
        self.scenes.add(row["scene"])
        for name, value in (row["scores"] or {}).items():
            self.scores[name][value] += 1
        if self.splits.total() <= CLOUD_PROMPTS:
            self.words.update(word.strip(".,;:").lower() for word in row["edited_prompt"].split())
        with open_picture(row["source"]["bytes"]) as image:
            self.sizes["x".join(map(str, image.size))] += 1
        samples = self.samples.setdefault(row["task"], [])
        if len(samples) < SAMPLES and split == "train":
            samples.append(row)


def write_card(
    folder: Path, out: Path, files: Mapping[str, Sequence[Path]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``README.md`` with its plots into the exported ``folder``; returns the statistics.

    Args:
        out: folder of the recipe, whose manifests count what was rejected.
        files: of each split.
        facts: ``recipe``, ``licence``, ``note``, ``models`` by part, ``versions`` of libraries.
    """
    tally = Tally()
    for split, row in _rows(files):
        tally.add(split, row)
    plots = folder / "plots"
    plots.mkdir()
    draw_plots(tally, plots)
    samples = draw_samples(tally, plots)
    stages = {name: _stage(out / name / MANIFEST) for name in STAGES}
    templates = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {"text": markdown_text, "code": markdown_code}
    page = templates.from_string((Path(__file__).parent / "card.md.j2").read_text())
    statistics = {
        "splits": dict(tally.splits),
        "scenes": len(tally.scenes),
        "tasks": {task: tally.tasks[task] for task in TASKS},
        "sizes": dict(tally.sizes.most_common()),
        "scores": {name: _mean(counts) for name, counts in tally.scores.items() if counts},
    }
    (folder / "README.md").write_text(page.render(stages=stages, samples=samples, **facts, **statistics))
    return statistics


def _rows(files: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for split, paths in files.items():
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=50):
                yield from ((split, row) for row in batch.to_pylist())


def _stage(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    return {name: manifest[name] for name in ("rows", "accepted", "rejected")}


def _mean(counts: Mapping[float, int]) -> float:
    return round(sum(value * count for value, count in counts.items()) / sum(counts.values()), 2)


def draw_plots(tally: Tally, folder: Path) -> None:
    """Bars of tasks and scenes, histograms of the scores, a word cloud."""
    _bars([(task.replace("_", " "), tally.tasks[task]) for task in TASKS], "pairs", folder / "tasks.png")
    shown = tally.environments.most_common(SCENES_SHOWN)
    rest = len(tally.environments) - len(shown)
    _bars(
        [(name.replace("_", " "), count) for name, count in shown],
        "pairs" + (f" (and {rest} kinds of scenes with fewer)" if rest else ""),
        folder / "scenes.png",
    )
    _histograms(tally.scores, folder / "scores.png")
    words = {word: count for word, count in tally.words.items() if len(word) > 2 and word not in STOPWORDS}
    # The package's own font and a fixed seed, so that equal words give an equal image.
    cloud = WordCloud(width=1200, height=500, background_color="white", random_state=0)
    cloud.generate_from_frequencies(words or {"empty": 1}).to_file(str(folder / "words.png"))


def _bars(rows: Sequence[tuple[str, int]], label: str, path: Path) -> None:
    figure = Figure(figsize=(7, 0.6 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in rows], [count for _, count in rows], color="#4878a8")
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.1, y=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _histograms(scores: Mapping[str, Mapping[float, int]], path: Path) -> None:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (name, counts) in zip(figure.subplots(1, len(scores), sharey=True), scores.items(), strict=True):
        axes.hist(list(counts), bins=np.arange(-0.5, 11), weights=list(counts.values()), color="#4878a8", rwidth=0.9)
        axes.set(title=name, xlabel="score", xticks=range(0, 11, 2), xlim=(-0.6, 10.6))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("pairs" if axes.get_subplotspec().is_first_col() else "")
    figure.savefig(path, dpi=110)


def draw_samples(tally: Tally, folder: Path) -> list[dict[str, str]]:
    """Draw source and target of some rows of each task; returns task, instruction and file of each."""
    drawn = []
    for task in TASKS:
        for number, row in enumerate(tally.samples.get(task, [])):
            images = [open_picture(row[name]["bytes"]).convert("RGB") for name in ("source", "target")]
            images = [_scaled(image) for image in images]
            width, height = images[0].size
            strip = Image.new("RGB", (2 * width + 4, height), "white")
            strip.paste(images[0], (0, 0))
            strip.paste(images[1], (width + 4, 0))
            name = f"{task}_{number + 1}.png"
            write_picture(strip, folder / name, "PNG")
            drawn.append({"task": task, "instruction": row["instruction"], "file": f"plots/{name}"})
    return drawn


def _scaled(image: Image.Image) -> Image.Image:
    factor = SAMPLE_SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
    return image
