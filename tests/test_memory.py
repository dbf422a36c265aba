"""Where parts are put changes nothing in the result; what needs less does fit into less."""

import numpy as np
import pytest
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.edit import main
from imvideoedit.editing.edit_file import load_pipeline
from imvideoedit.editing.memory import needs
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.offload import LOW_FRAMES, Placement, choose_level, next_level
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.reader import read_video, write_video
from imvideoedit.wan.backbone import load_backbone
from tests.conftest import awaken

CPU = torch.device("cpu")
OWN = SamplingConfig(max_area=16 * 32, max_frames=81, steps=2, guidance=2.0)


def loaded(wan_folder, method):
    backbone = load_backbone(str(wan_folder), device="cpu")
    method.install(backbone.transformer)
    torch.manual_seed(0)
    awaken(method)
    return backbone, method.requires_grad_(False)


@pytest.mark.parametrize("level", OFFLOAD_LEVELS)
def test_every_level_gives_the_same_edit(wan_folder, level, caplog):
    video = np.random.default_rng(0).integers(0, 256, (5, 16, 32, 3), np.uint8)
    results = []
    for asked in ("full", level):
        backbone, method = loaded(wan_folder, AlignedUpdate())
        pipeline = EditPipeline(backbone, method, OWN, Placement(backbone, method, CPU, asked))
        results.append([pipeline(video, text).frames for text in ("a red ball", "snow")])
        assert pipeline.placement.level == asked
    assert np.array_equal(*results)
    assert (f"memory: {level}" in caplog.text) == (level != "full")


def test_the_last_level_takes_short_windows(wan_folder):
    backbone, method = loaded(wan_folder, PredictUpdate())
    low = Placement(backbone, method, CPU, "low").fit(OWN, 100, 512)
    assert (low.max_frames, low.overlap) == (LOW_FRAMES, 8) and low.steps == OWN.steps
    assert Placement(backbone, method, CPU, "full").fit(OWN, 100, 512) == OWN


def test_needs_fall_from_level_to_level_and_grow_with_the_window(wan_folder):
    backbone, method = loaded(wan_folder, PredictUpdate())
    few, many = (needs(backbone, method, tokens, 0) for tokens in (10, 100))
    wanted = [many.of(level) for level in OFFLOAD_LEVELS]
    assert wanted == sorted(wanted, reverse=True) and wanted[0] > wanted[1] > wanted[2]
    assert many.work == 10 * few.work and many.of("full") == many.of("full", sum(e.recorded for e in many.features))
    large = needs(backbone, method, 10, 10**6)
    assert large.of("model") == large.weights["vae"] + large.coding > many.of("model")
    assert large.of("low") < large.of("model") and 0 < large.tile < large.coding  # in tiles
    weights = sum(
        p.nbytes for part in (backbone.transformer, backbone.vae, backbone.text_encoder) for p in part.parameters()
    )
    assert weights <= many.of("full", 0) - many.work < 1.1 * weights


def test_auto_takes_the_first_level_that_fits(wan_folder):
    backbone, method = loaded(wan_folder, PredictUpdate())
    needed = needs(backbone, method, 100, 0)
    gpu = torch.device("cuda")
    for level in OFFLOAD_LEVELS[:3]:
        assert choose_level("auto", needed, gpu, needed.of(level)) == choose_level(level, needed, gpu, 0) == level
    assert choose_level("auto", needed, gpu, 0, 10**12) == choose_level("auto", needed, CPU, 0) == "low"
    # Before windows are made shorter, the CPU's memory holds what is known of the source.
    recorded = sum(each.recorded for each in needed.features)
    assert choose_level("auto", needed, gpu, needed.of("group", 0), recorded) == "group"
    assert choose_level("auto", needed, gpu, needed.of("group", 0), recorded - 1) == "low"
    assert [next_level(level, gpu) for level in OFFLOAD_LEVELS] == [*OFFLOAD_LEVELS[1:], None]
    with pytest.raises(UserError, match="memory is 'some'; choose auto, full, model, group, low, or an amount"):
        Placement(backbone, method, CPU, "some")


def test_what_no_method_reads_of_the_source_is_not_kept(wan_folder):
    works = []
    for method in (AlignedUpdate(), PredictUpdate(update=False), PredictUpdate()):
        backbone, method = loaded(wan_folder, method)
        works.append(sum(each.recorded for each in needs(backbone, method, 10, 0).features))
        method.uninstall()
    assert works[0] == works[1] < works[2]


@pytest.mark.parametrize(("fitting", "code"), [(99, 0), (5, 0), (4, 2)])
def test_an_edit_that_does_not_fit_is_tried_once_more_with_less(tmp_path, fitting, code, monkeypatch, caplog, capsys):
    """The command with a transformer that can hold ``fitting`` latent frames; a window of ``low`` has five."""

    def limited(*arguments) -> EditPipeline:
        pipeline = load_pipeline(*arguments)
        pipeline.backbone.transformer.patch_embedding.register_forward_pre_hook(allocate)
        return pipeline

    def allocate(module, latents) -> None:
        if latents[0].shape[2] > fitting:
            torch.empty(2**62, dtype=torch.uint8)  # raises what the allocator raises where memory ran out

    monkeypatch.setattr("imvideoedit.editing.edit_file.load_pipeline", limited)
    frames = np.random.default_rng(0).integers(0, 256, (25, 16, 16, 3), np.uint8)
    write_video(tmp_path / "in.mp4", frames, fps=16)

    def edited(memory: str, name: str) -> np.ndarray:
        options = ["--device", "cpu", "--codec", "lossless", "--steps", "1", "--max-area", "256"]
        main([str(tmp_path / "in.mp4"), "snow", "--memory", memory, "--output", str(tmp_path / name), *options])
        return read_video(tmp_path / name)[0]

    if code:
        with pytest.raises(SystemExit) as ended:
            edited("full", "full.mp4")
        assert ended.value.code == code and [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
        last = capsys.readouterr().err.splitlines()[-1]
        assert "in.mp4 does not fit into memory, also one offload level lower; give" in last
        return
    full, lowered = edited("full", "full.mp4"), "memory: low" in caplog.text
    assert lowered == (fitting < 7)
    assert np.array_equal(full, edited("low", "low.mp4")) == lowered
