"""Synthesis by the real diffusers pipeline classes of Qwen-Image and Qwen-Image-Edit, tiny and random."""

import os
import signal
from pathlib import Path

import pytest

from data_recipes.diffusion import DiffusersPainter
from data_recipes.engine import Local, Ray
from data_recipes.rows import digest
from data_recipes.stages import StageRun, shards_of
from data_recipes.synthesis import Synthesis
from imvideoedit.common.errors import UserError
from imvideoedit.video.images import load_rgb
from tests import tiny_qwen

SHARDS, ROWS = 4, 2
SIZES = [(32, 48), (48, 32)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    return tiny_qwen.save(tmp_path_factory.mktemp("qwen"))


class Mortal(tiny_qwen.Painter):
    """Its process dies in the middle of its first shard, unless one has died before."""

    marker: Path | None = None

    def paint(self, rows, seeds):
        painted = super().paint(rows, seeds)
        if self.marker and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return painted


def painter(folders: tuple[str, str], marker: Path | None = None, **options) -> Mortal:
    steps = {"num_inference_steps": 1}
    made = Mortal(*folders, text_to_image_call=steps, image_edit_call=steps, **{"dtype": "float32"} | options)
    made.marker = marker
    return made


def write_prompts(out: Path) -> None:
    """A finished stage of prompts."""
    shards = shards_of(out, "prompts")
    for index in range(SHARDS):
        rows = []
        for place in range(ROWS):
            height, width = SIZES[place % 2]
            name = f"{index}-{place}"
            row = {"id": digest(name), "scene": name, "environment": "test", "task": "relighting", "origin": "{}"}
            row |= {"instruction": f"light {name}", "source_prompt": f"cat {name}", "edited_prompt": f"lit cat {name}"}
            rows.append(row | {"height": height, "width": width, "accepted": place != 1 or index != 0, "reason": ""})
        shards.write(index, rows, digest("prompts", index))
    shards.finish([digest("prompts", index) for index in range(SHARDS)], {})


@pytest.mark.slow
def test_local_and_a_ray_cluster_with_a_killed_worker_make_the_same_pairs_each_once(folders, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'imvideoedit[recipes]'")
    marker = tmp_path / "died"
    results = {}
    for name, engine, mark in (("local", Local(), None), ("ray", Ray(workers=2), marker)):
        out = tmp_path / name
        write_prompts(out)
        run = StageRun(Synthesis(painter(folders, mark)), out)
        assert sorted(engine.run(run, run.missing(SHARDS)[1])) == list(range(SHARDS))
        results[name] = [row for index in range(SHARDS) for row in shards_of(out, "synthesize").read(index)]
    ray.shutdown()
    assert marker.exists(), "no worker was killed"
    assert results["ray"] == results["local"]
    pairs = results["local"]
    assert len({pair["id"] for pair in pairs}) == len(pairs) == SHARDS * ROWS - 1
    assert len({pair["seed"] for pair in pairs}) == len({pair["source"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        images = [load_rgb(pair[name], name) for name in ("source", "target")]
        assert all(image.shape == (pair["height"], pair["width"], 3) for image in images)
        assert (images[0] != images[1]).any()


def test_what_a_painter_cannot_do_is_one_line(folders, tmp_path):
    with pytest.raises(UserError, match="edit_by"):
        DiffusersPainter(*folders, edit_by="magic")
    with pytest.raises(UserError, match="painter.text_to_image"):
        painter((str(tmp_path), folders[1])).paint([{"height": 32, "width": 32, "source_prompt": "a cat"}], [0])
    odd = tiny_qwen.Painter(*folders, text_to_image_call={"number_of_steps": 3}, dtype="float32")
    with pytest.raises(UserError, match="painter.text_to_image_call"):
        odd.paint([{"height": 32, "width": 32, "source_prompt": "a cat"}], [0])


def test_other_settings_make_other_ids(folders):
    row = {"id": "a"}
    made = {digest(row["id"], 0, painter(folders, **options).identity()) for options in ({}, {"batch_size": 2})}
    assert len(made) == 2
    assert painter(folders).models == {"source images": folders[0], "edited images": folders[1]}
