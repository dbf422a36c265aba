"""The core serves a method with inputs, tokens and guidance branches of its own."""

from dataclasses import replace

import pytest
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.flow.guidance import Guidance
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.wan.backbone import Backbone
from tests.conftest import awaken, tiny_transformer
from tests.test_methods import batch_with_inputs
from tests.toy_method import Toy

CONFIG = SamplingConfig(steps=3, guidance=1.0, max_frames=81)


def edit(batch=None, seed=0, **values):
    transformer, method = tiny_transformer(), Toy()
    torch.manual_seed(0)
    method.install(transformer)
    awaken(method)
    batch = replace(batch or batch_with_inputs(1, 5), target_BCFHW=None, empty_TD=torch.zeros(5, 16))
    return Denoiser(transformer, method, 3.0, 4, CONFIG.override(**values))(batch, seed)


def test_an_edit_repeats_and_depends_on_the_seed_and_each_input():
    batch = batch_with_inputs(1, 5)
    first = edit(batch)
    assert first.shape == batch.source_BCFHW.shape and torch.equal(first, edit(batch))
    assert not torch.equal(first, edit(batch, seed=1))
    for name, value in batch.conditions.items():
        other = replace(batch, conditions={**batch.conditions, name: 1 - value})
        assert (edit(other) - first).abs().max() > 1e-3


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_window_sees_its_own_part_of_the_mask_alone(solver):
    batch = batch_with_inputs(1, 5)
    mask = batch.conditions["mask"].clone()
    mask[:, :, 13:] = 1 - mask[:, :, 13:]  # of the last latent frame
    other = replace(batch, conditions={**batch.conditions, "mask": mask})
    settings = {"solver": solver, "steps": 1, "max_frames": 9, "overlap": 4}
    before, after = (edit(each, **settings) for each in (batch, other))
    # Windows of three latent frames that share one; a single step, so that they do not reach each other.
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2:], after[:, :, 2:])


def test_both_guidance_branches_count():
    plain = edit()
    by_text, by_inputs = edit(guidance=3.0), edit(source_guidance=3.0)
    assert (by_text - plain).abs().max() > 1e-3 and (by_inputs - plain).abs().max() > 1e-3
    # A scale of 0 leaves the branch without source and inputs, so that these no longer count.
    other = replace(batch_with_inputs(1, 5, seed=7), text_BTD=batch_with_inputs(1, 5).text_BTD)
    assert torch.allclose(edit(source_guidance=0.0), edit(other, source_guidance=0.0), atol=1e-5)
    assert not torch.allclose(plain, edit(other), atol=1e-3)


def test_neither_scale_of_guidance_scales_what_the_other_adds():
    parts = {"edit": 1.0, "without_text": 10.0, "without_source": 100.0}
    one = torch.ones(1)

    def guided(text, source):
        asked = []
        v = Toy().guide(lambda name: asked.append(name) or parts[name] * one, Guidance(text, source))
        return float(v), set(asked)

    assert guided(1, 1) == (1, {"edit"})
    assert guided(3, 1) == (1 + 2 * (1 - 10), {"edit", "without_text"})
    assert guided(1, 3) == (1 + 2 * (1 - 100), {"edit", "without_source"})
    assert guided(3, 3) == (1 + 2 * (1 - 10) + 2 * (1 - 100), set(parts))
    assert guided(1, 0) == (100, {"edit", "without_source"})


def test_a_start_from_the_source_is_refused_where_more_than_the_video_is_sampled():
    with pytest.raises(UserError, match="strength below 1"):
        edit(strength=0.5)


def test_guidance_that_a_method_does_not_have_is_one_line(monkeypatch):
    monkeypatch.setattr(Toy, "branches", lambda self, t, batch, known: {"edit": self.velocity(t, batch)})
    with pytest.raises(UserError, match="no guidance by the source; leave it at 1"):
        edit(source_guidance=2.0)


@pytest.mark.parametrize("kind", [Toy, AlignedUpdate])
def test_what_is_not_in_the_transformer_is_placed_with_it(kind):
    transformer, method = tiny_transformer(), kind()
    method.install(transformer)
    backbone = Backbone("tiny", None, transformer, None, None, None, 3.0)
    Placement(backbone, method, torch.device("meta"), "full").fit(CONFIG, 10, 100)
    assert {parameter.device.type for parameter in (*method.parameters(), *transformer.parameters())} == {"meta"}
