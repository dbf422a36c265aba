"""Readouts of the pretraining: what a token shows, and that the transformer learns from being asked."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.nano.readouts import Readouts, label_tokens
from imvideoedit.nano.scene_batches import WorldBatches
from imvideoedit.wan.forward import denoise_in_parts, tapped
from imvideoedit.world.render import render, which_thing
from imvideoedit.world.scenes import KINDS, OBJECT_COLORS, Scene, Thing, plain_scene, sample_scene
from tests.conftest import tiny_transformer


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), frame=st.integers(0, 12))
def test_a_thing_is_seen_where_taking_it_away_changes_the_picture(seed, frame):
    scene = plain_scene(np.random.default_rng(seed), "train").with_thing(0, material="matte", state="plain")
    seen = which_thing(scene, np.array([frame]), (64, 64))[0] == 1
    empty = Scene(scene.background, scene.pattern)
    changed = (render(scene, frame + 1)[frame] != render(empty, frame + 1)[frame]).any(-1)
    # One pixel of the soft edge may differ; a background of nearly the thing's colour may hide some of it.
    assert (seen & ~changed).sum() <= 0.05 * seen.sum() + 2
    assert (changed & ~seen).sum() <= 0.45 * seen.sum() + 24


def test_later_things_hide_earlier_ones():
    things = (Thing("box", "red", x=0.5, y=0.5), Thing("ball", "blue", x=0.5, y=0.5, size="small"))
    seen = which_thing(Scene("grey", "plain", things), np.zeros(1), (33, 33))[0]
    assert seen[16, 16] == 2 and 1 in seen and seen[0, 0] == 0


def test_labels_name_colour_and_kind_where_the_thing_is_and_follow_it():
    thing = Thing("box", "pink", size="large", motion="moving right", x=0.2, y=0.2)
    labels = label_tokens(Scene("grey", "plain", (thing,)), 5, (8, 8))
    assert labels.shape == (5, 8, 8, 4)
    assert labels[0, 1, 1].tolist() == [1 + list(OBJECT_COLORS).index("pink"), 1 + KINDS.index("box"), 1, 1]
    assert labels[0, 6, 6].tolist() == [0, 0, 0, 0]
    columns = [labels[k, ..., 0].nonzero()[:, 1].float().mean() for k in range(5)]
    assert columns == sorted(columns) and columns[4] > columns[0] + 1


def test_losses_fall_when_the_transformer_knows_and_reach_into_it():
    transformer = tiny_transformer()
    readouts = Readouts(transformer)
    labels = torch.randint(0, 5, (2, 1, 2, 3, 4), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([*transformer.parameters(), *readouts.parameters()], 3e-3)
    noise = torch.randn(2, 4, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    totals = []
    for _ in range(60):
        with tapped(transformer, readouts.taps) as outputs:
            denoise_in_parts(transformer, noise, torch.full((2,), 0.5), torch.zeros(2, 5, 16))
        losses = readouts.losses({"content": labels}, outputs)
        total = torch.stack(list(losses.values())).mean(1).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert set(losses) == {"place", "color", "kind", "material", "state"} and totals[-1] < 0.3 * totals[0]
    assert transformer.patch_embedding.weight.grad.abs().sum() > 0


def test_batches_of_two_processes_differ_and_have_one_shape_at_a_time():
    batches = WorldBatches(3, 4, [(6, 1), (2, 5)], ranks=2)
    assert len(batches) == 8
    assert [tuple(batches[i]["video"].shape[::2][:2]) for i in range(4)] == [(6, 1), (6, 1), (2, 5), (2, 5)]
    assert not torch.equal(batches[0]["video"], batches[1]["video"])
    later = WorldBatches(3, 4, [(6, 1), (2, 5)], start=1, ranks=2)
    assert torch.equal(batches[3]["video"], later[1]["video"])


def test_a_plain_scene_is_lit_plainly_and_has_one_thing():
    scene = plain_scene(np.random.default_rng(4), "test")
    assert len(scene.things) == 1 and scene.style == "natural" and scene.direction == "front"
    assert scene.things == sample_scene(np.random.default_rng(4), "test", (1, 1)).things
