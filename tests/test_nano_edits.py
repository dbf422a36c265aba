"""Exact edits and the language that asks for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.nano.text import MAX_TOKENS, build_tokenizer
from imvideoedit.world.edits import sample_edit
from imvideoedit.world.grammar import apply_instruction, caption, describe
from imvideoedit.world.scenes import CREATURE_KINDS, RIGID_KINDS, is_held_out, sample_scene
from imvideoedit.world.tasks import TASKS

seeds = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from(TASKS), st.sampled_from(["train", "test"]))
def test_the_grammar_turns_every_instruction_into_the_prompt_of_the_edited_scene(seed, task, split):
    edit = sample_edit(np.random.default_rng(seed), split, task)
    assert apply_instruction(edit.instruction, edit.source_prompt) == edit.edited_prompt == describe(edit.target)
    alone = apply_instruction(edit.instruction)
    assert alone and len(alone) < len(edit.edited_prompt)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(TASKS))
def test_training_edits_never_show_a_held_out_composition(seed, task):
    edit = sample_edit(np.random.default_rng(seed), "train", task)
    for scene in (edit.source, edit.target):
        assert not any(is_held_out(t.color, t.kind) for t in scene.things)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(TASKS))
def test_the_mask_is_where_source_and_target_differ(seed, task):
    edit = sample_edit(np.random.default_rng(seed), "test", task)
    source, target, mask = edit.render(5)
    assert source.shape == target.shape == (5, 64, 64, 3) and mask.shape == (5, 64, 64)
    assert np.abs(source[~mask].astype(int) - target[~mask]).max(initial=0) <= 4
    assert (np.abs(source[mask].astype(int) - target[mask]).max(-1) > 4).all()
    assert mask[0].mean() > 0.01


def _only_changed(edit, field):
    same = {f: getattr(edit.source, f) == getattr(edit.target, f) for f in edit.source.__dataclass_fields__}
    return not same.pop(field) and all(same.values())


@pytest.mark.parametrize("seed", range(5))
def test_each_task_changes_what_it_says_and_nothing_else(seed):
    made = {task: sample_edit(np.random.default_rng(seed), "test", task) for task in TASKS}
    assert _only_changed(made["style_transfer"], "style")
    assert _only_changed(made["camera_viewpoint"], "view")
    for task in ("color_texture", "local_attribute", "object_addition", "object_removal"):
        assert _only_changed(made[task], "things")
    assert len(made["object_addition"].target.things) == len(made["object_addition"].source.things) + 1
    assert len(made["object_removal"].target.things) == len(made["object_removal"].source.things) - 1
    for task, kinds in (("rigid_replacement", RIGID_KINDS), ("nonrigid_replacement", CREATURE_KINDS)):
        pairs = zip(made[task].source.things, made[task].target.things, strict=True)
        changed = [(a, b) for a, b in pairs if a != b]
        assert len(changed) == 1 and changed[0][0].kind in kinds and changed[0][1].kind in kinds
    assert made["relighting"].source.things == made["relighting"].target.things
    assert made["background_replacement"].source.things == made["background_replacement"].target.things


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_every_prompt_and_caption_fits_the_tokenizer_without_unknown_words(seed):
    tokenizer, rng = build_tokenizer(), np.random.default_rng(seed)
    scene = sample_scene(rng, "train")
    for text in (describe(scene), caption(scene, rng)):
        ids = tokenizer(text).input_ids
        assert len(ids) <= MAX_TOKENS and tokenizer.unk_token_id not in ids


def test_words_outside_the_language_are_not_understood():
    assert apply_instruction("make my cat look like a lion") is None


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="'sharpen'"):
        sample_edit(np.random.default_rng(0), "train", "sharpen")
