"""LoRA-Edit: its condition, what is trained, what reaches what, its samples, and edits by the trained nano base."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.conditions import ConditionEncoder
from imvideoedit.evaluation.nano.clip_cases import case_of
from imvideoedit.evaluation.nano.clip_fits import Fits, edit_clip, fit_stage, scores
from imvideoedit.methods.adapter_file import load_adapter, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.block_lora import ATTENTION, FEED_FORWARD
from imvideoedit.methods.image_condition import GREY, condition_channels, kept, pack_mask, unpack_mask
from imvideoedit.methods.lora_edit import ANCHOR, CHANNELS, LoraEdit
from imvideoedit.methods.lora_edit_samples import chunks_of, stage_samples
from imvideoedit.nano.inputs import Preparation
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.encoders import ImageEncoder
from imvideoedit.wan.forward import denoise
from imvideoedit.wan.image_to_video import apply_change, save_change, widen
from imvideoedit.world.edits import Edit
from imvideoedit.world.scenes import Scene, Thing
from tests import processes
from tests.conftest import awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])
NONE = np.random.default_rng(0)  # a transform that draws nothing


def image_batch(frames=3, seed=1):
    plain, generator = tiny_batch(2, frames, 4, 6, seed), torch.Generator().manual_seed(seed + 1)
    masked = torch.randn(2, 4, frames, 4, 6, generator=generator)
    mask = torch.rand(2, 1, 4 * (frames - 1) + 1, 32, 48, generator=generator).round()
    return replace(plain, conditions={"mask": mask, "masked_video": masked, "first_frame": masked[:, :, :1]})


def installed(awake=True, target="paper", **config):
    transformer = tiny_transformer(**{"in_channels": 12} | config)
    method = LoraEdit(rank=4, target=target)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


def pixels(frames=5, height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def box(frames=5, height=16, width=16):
    mask = np.zeros((frames, height, width), np.uint8)
    mask[:, 4:12, 4:12] = 255
    return mask


# (1) The deltas: which maps have them, and that new ones change nothing.


@pytest.mark.parametrize(("target", "maps"), [("paper", ATTENTION), ("release", ATTENTION + FEED_FORWARD)])
def test_each_mode_trains_its_maps_and_never_those_of_image_keys_and_values(target, maps):
    transformer, method = installed(target=target, image_dim=8, added_kv_proj_dim=24)
    linear = {name for name, module in transformer.blocks[0].named_modules() if isinstance(module, torch.nn.Linear)}
    assert linear == {*ATTENTION, *FEED_FORWARD, "attn2.add_k_proj", "attn2.add_v_proj"}
    assert set(method.lora[0].deltas) == {name.replace(".", "_") for name in maps}
    trained = {name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    assert trained == set()


def test_a_plain_pass_stays_the_frozen_model():
    transformer, _ = installed()
    x, text = torch.randn(2, 12, 3, 4, 6), torch.randn(2, 5, 16)
    plain = tiny_transformer(in_channels=12)
    assert torch.equal(denoise(transformer, x, SIGMA, text), denoise(plain, x, SIGMA, text))


# (2) The mask as diffusers packs it.


class Zeros(torch.nn.Module):
    """An autoencoder that gives zeros."""

    dtype, device = torch.float32, torch.device("cpu")
    config = SimpleNamespace(latents_mean=[0.0] * 4, latents_std=[1.0] * 4, z_dim=4)

    def encode(self, video):
        frames, height, width = video.shape[2:]
        latents = torch.zeros(1, 4, (frames - 1) // 4 + 1, height // 8, width // 8)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def diffusers_condition(frames, height, width, last):
    """What diffusers' own pipeline makes of a first and, if asked, a last frame."""
    own = SimpleNamespace(
        vae=Zeros(),
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=8,
        config=SimpleNamespace(expand_timesteps=False),
    )
    image = torch.zeros(1, 3, height, width)
    return WanImageToVideoPipeline.prepare_latents(
        own, image, 1, 4, height, width, frames, torch.float32, torch.device("cpu"), None, None, image if last else None
    )[1]


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(0, 5), height=st.integers(1, 4), width=st.integers(1, 4), last=st.booleans())
def test_first_and_last_frame_masks_are_packed_as_by_diffusers(groups, height, width, last):
    frames = 4 * groups + 1
    last = last and frames > 1
    found = torch.zeros(1, 1, frames, 16 * height, 16 * width)
    found[:, :, 0] = 1
    if last:
        found[:, :, -1] = 1
    expected = diffusers_condition(frames, 16 * height, 16 * width, last)
    assert torch.equal(pack_mask(found, (2 * height, 2 * width)), expected[:, :4])


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(0, 5), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
def test_any_mask_is_packed_by_diffusers_formula_and_unpacks(groups, height, width, seed):
    frames = 4 * groups + 1
    small = torch.rand(2, 1, frames, height, width, generator=torch.Generator().manual_seed(seed)).round()
    large = small.repeat_interleave(8, 3).repeat_interleave(8, 4)
    # As WanImageToVideoPipeline.prepare_latents: the first frame four times, view, transpose.
    long = torch.cat([small[:, :, :1].repeat_interleave(4, dim=2), small[:, :, 1:]], dim=2)
    expected = long.view(2, -1, 4, height, width).transpose(1, 2)
    packed = pack_mask(large, (height, width))
    assert torch.equal(packed, expected) and torch.equal(unpack_mask(packed), small)


def test_white_is_generated_and_the_first_frame_is_kept_where_it_is_given():
    mask = torch.zeros(1, 1, 5, 8, 8)
    mask[..., :4] = 1
    assert kept(mask, first=False)[0, 0, :, 0].tolist() == [[0.0] * 4 + [1.0] * 4] * 5
    assert kept(mask, first=True)[0, 0, 0].eq(1).all() and kept(mask, first=True)[0, 0, 1, :, 0].eq(0).all()


# (3) What the condition knows.


@pytest.fixture(scope="module")
def nano():
    """The nano text-to-video base with the further channels, untrained."""
    base = load_backbone("nano", device="cpu")
    widen(base.transformer)
    return base


def on_nano(nano, example):
    """A sample encoded as an edit encodes its source and inputs."""
    encoder = ConditionEncoder(nano, (16, 16), (16, 16))
    declared = [each for each in LoraEdit.inputs if each.name in example]
    inputs = {each.name: partial(iter, example[each.name]) for each in declared}
    source, count = encoder.latents(iter(example["source"]))
    conditions = encoder.conditions(declared, inputs, count)
    conditions |= encoder.derived(LoraEdit(), declared, inputs, partial(iter, example["source"]), count)
    target, _ = encoder.latents(iter(example["target"]))
    return EditBatch(source, target, nano.encode_text(["a red ball"]), conditions)


def channels_of(batch):
    given = batch.conditions
    return condition_channels(given["mask"], given["masked_video"], given.get("first_frame"))


def test_the_condition_knows_the_background_and_not_what_is_edited(nano):
    clip, mask = pixels(), box()
    (first,) = stage_samples(clip, mask, {}, 1)
    plain = channels_of(on_nano(nano, first.example))
    assert plain.shape == (1, 20, 2, 4, 4)
    inside, outside, in_first = clip.copy(), clip.copy(), clip.copy()
    inside[1:][mask[1:] > 0] = 7
    outside[2, 0, 0] = 255 - outside[2, 0, 0]
    in_first[0, 5, 5] = 255 - in_first[0, 5, 5]
    of = {}
    for name, changed in (("inside", inside), ("outside", outside), ("first", in_first)):
        (sample,) = stage_samples(changed, mask, {}, 1)
        of[name] = channels_of(on_nano(nano, sample.example))
    assert torch.equal(of["inside"], plain)
    assert not torch.equal(of["outside"], plain) and not torch.equal(of["first"], plain)


def test_what_is_generated_is_grey_before_the_autoencoder_and_the_first_frame_is_whole():
    clip, mask = pixels(), box()
    (sample,) = stage_samples(clip, mask, {}, 1)
    made = LoraEdit().transform(sample.example, NONE)["masked_video"]
    assert np.array_equal(made[0], clip[0])
    assert (made[1:][mask[1:] > 0] == GREY).all() and np.array_equal(made[1:][mask[1:] == 0], clip[1:][mask[1:] == 0])


def test_a_given_first_frame_replaces_that_of_the_clip_and_nothing_else(nano):
    clip, other = pixels(), pixels(1, seed=5)
    (sample,) = stage_samples(clip, box(), {}, 1)
    own, edited = (on_nano(nano, sample.example | {"first_frame": frame}) for frame in (clip[:1], other))
    assert not torch.equal(channels_of(own)[:, 4:, 0], channels_of(edited)[:, 4:, 0])
    assert torch.equal(channels_of(own)[:, :, 1:], channels_of(edited)[:, :, 1:])
    # The first frame is encoded alone, so its latents are those of the whole video's first one.
    torch.testing.assert_close(edited.conditions["first_frame"][:, :, 0], edited.conditions["masked_video"][:, :, 0])


# (4) The loss is that of the whole frame.


@pytest.mark.parametrize("first", [True, False])
def test_kept_and_edited_places_have_a_gradient(first):
    transformer, method = installed()
    batch = image_batch()
    if not first:
        batch = replace(batch, conditions={k: v for k, v in batch.conditions.items() if k != "first_frame"})
    point, sigma, weights = method.training_point(batch, torch.Generator().manual_seed(0))
    seen = {}

    def velocity(*args, **how):
        inner = LoraEdit.velocity(method, *args, **how)

        def kept_gradient(x, sigma_B):
            seen["v"] = inner(x, sigma_B)
            seen["v"].retain_grad()
            return seen["v"]

        return kept_gradient

    method.velocity = velocity
    method.losses_at(transformer, batch, point, sigma, weights)["flow_matching"].sum().backward()
    assert seen["v"].grad.ne(0).all()
    expected = 2 * (seen["v"] - point.velocity_BCFHW) / seen["v"][0].numel()
    torch.testing.assert_close(seen["v"].grad, expected.detach())


# (5) The second stage, replay and the low-cost parts.


def test_an_edited_frame_is_the_target_alone():
    clip, mask, edited = pixels(), box(), pixels(2, seed=3)
    one, other = (stage_samples(clip, mask, {3: frame}, 2)[-1].example for frame in edited)
    assert {name: np.array_equal(one[name], other[name]) for name in one} == {
        "source": True, "target": False, "mask": True,
    }  # fmt: skip
    assert one["target"].shape == (1, 16, 16, 3) and np.array_equal(one["source"][0], clip[3])
    made = LoraEdit().transform(one, NONE)["masked_video"]
    assert (made[0][mask[3] > 0] == GREY).all() and np.array_equal(made[0][mask[3] == 0], clip[3][mask[3] == 0])


def test_of_an_edited_frame_nothing_inside_the_mask_is_given(nano):
    clip, edited = pixels(), pixels(1, seed=3)
    batch = on_nano(nano, stage_samples(clip, box(), {0: edited[0]}, 2)[-1].example)
    packed = channels_of(batch)[:, :4]
    assert batch.target_BCFHW.shape[2] == 1 and packed[0, :, 0, 1:3, 1:3].eq(0).all()
    assert packed[0, :, 0, 0].eq(1).all()


def test_the_clip_comes_once_where_an_edited_frame_comes_nine_times():
    samples = stage_samples(pixels(), box(), {4: pixels(1)[0], 2: pixels(1)[0]}, 2)
    assert [(each.start, each.edited, each.repeats) for each in samples] == [(0, False, 1), (2, True, 9), (4, True, 9)]
    assert [each.repeats for each in stage_samples(pixels(), box(), {2: pixels(1)[0]}, 1)] == [1]


def test_the_low_cost_parts_of_49_frames_are_the_papers_four():
    assert [(part.start + 1, part.stop) for part in chunks_of(49)] == [(1, 13), (13, 25), (25, 37), (37, 49)]


@settings(deadline=None)
@given(frames=st.integers(1, 120), length=st.integers(2, 20))
def test_low_cost_parts_cover_a_clip_and_overlap(frames, length):
    parts = chunks_of(frames, length)
    assert {i for part in parts for i in range(frames)[part]} == set(range(frames))
    assert all(part.stop - part.start == min(frames, length) for part in parts) and parts[-1].stop == frames
    assert all(after.start < before.stop for before, after in zip(parts, parts[1:], strict=False))


def test_each_part_begins_with_a_first_frame_of_its_own():
    clip = pixels(9)
    samples = stage_samples(clip, box(9), {}, 1, chunks_of(9, 5))
    assert [sample.start for sample in samples] == [0, 4]
    assert np.array_equal(samples[1].example["first_frame"][0], clip[4])


@pytest.mark.parametrize(
    "wrong",
    [
        partial(stage_samples, pixels(), box(), {}, 3),
        partial(stage_samples, pixels(), box(4), {}, 1),
        partial(stage_samples, pixels(), box(5, 8, 8), {}, 1),
        partial(stage_samples, pixels(), box(), {5: pixels(1)[0]}, 2),
        partial(stage_samples, pixels(), box(), {0: pixels(1, 8, 8)[0]}, 2),
        partial(chunks_of, 49, 1),
    ],
)
def test_samples_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\d"):
        wrong()


# Windows, bases, image tokens, files.


def test_a_window_has_its_part_of_the_whole_channels_and_is_led_by_the_first_frame():
    transformer, method = installed()
    whole = method.window(image_batch(5), slice(0, 5), 4)
    begins, later = (method.window(whole, frames, 4) for frames in (slice(0, 3), slice(2, 5)))
    assert torch.equal(whole.conditions[CHANNELS], channels_of(image_batch(5)))
    assert torch.equal(later.conditions[CHANNELS], whole.conditions[CHANNELS][:, :, 2:5])
    assert ANCHOR not in begins.conditions
    x = torch.randn(2, 4, 3, 4, 6)
    assert method.velocity(transformer, later)(x, SIGMA).shape == x.shape
    other = replace(image_batch(5), conditions={**image_batch(5).conditions, "first_frame": torch.ones(2, 4, 1, 4, 6)})
    moved = method.window(method.window(other, slice(0, 5), 4), slice(2, 5), 4)
    assert not torch.equal(method.velocity(transformer, moved)(x, SIGMA), method.velocity(transformer, later)(x, SIGMA))


@pytest.mark.parametrize("channels", [4, 8, 11])
def test_a_base_that_is_no_image_to_video_model_is_refused_in_one_line(channels):
    with pytest.raises(UserError, match=rf"12 input channels .* has {channels}; .*nano_image_to_video") as caught:
        installed(in_channels=channels)
    assert "\n" not in str(caught.value)


def test_what_training_cannot_encode_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"without masked_video, which lora_edit needs; give data=pairs"):
        Preparation.of(LoraEdit())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"target": "all"}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(UserError, match="method.rank"):
        LoraEdit(**wrong)


def test_image_tokens_reach_the_edit_where_the_base_reads_them():
    transformer, method = installed(image_dim=8, added_kv_proj_dim=24)
    assert [each.name for each in method.derived] == ["masked_video", "image_tokens"]
    assert [each.name for each in installed()[1].derived] == ["masked_video"]
    batch = replace(image_batch(), text_BTD=torch.randn(2, 512, 16))  # diffusers splits by Wan's number of tokens
    x, found = torch.randn(2, 4, 3, 4, 6), []
    for seed in (0, 1):
        tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))
        given = replace(batch, conditions={**batch.conditions, "image_tokens": tokens})
        found.append(method.velocity(transformer, given)(x, SIGMA))
    assert not torch.allclose(*found)
    method.uninstall()
    both = torch.cat([x, channels_of(batch)], 1)
    with torch.no_grad():
        stock = transformer(both, 1000 * SIGMA, batch.text_BTD, tokens, return_dict=False)[0]
    fresh = LoraEdit(rank=4)
    fresh.install(transformer)
    assert torch.equal(fresh.velocity(transformer, given)(x, SIGMA), stock)


def test_a_base_without_its_image_encoder_is_one_line_and_with_it_gives_tokens(tmp_path, nano):
    with pytest.raises(UserError, match="mine.*image_encoder/") as caught:
        ImageEncoder.load("mine", {"pretrained_model_name_or_path": str(tmp_path)}, torch.float32)
    assert "\n" not in str(caught.value)
    torch.manual_seed(0)
    sizes = {"image_size": 28, "patch_size": 14, "num_hidden_layers": 3, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(hidden_size=8, intermediate_size=16, **sizes)).save_pretrained(
        tmp_path / "image_encoder"
    )
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28).save_pretrained(tmp_path / "image_processor")
    encoder = ImageEncoder.load("mine", {"pretrained_model_name_or_path": str(tmp_path)}, torch.float32)
    one, other = (replace(nano, image_encoder=encoder).encode_image(frame) for frame in pixels(2, 40, 56))
    assert one.shape == (1, 5, 8) and not torch.allclose(one, other)


def test_a_saved_adapter_is_the_same_again(tmp_path):
    transformer, method = installed(target="release")
    batch, x = image_batch(), torch.randn(2, 4, 3, 4, 6)
    expected = method.velocity(transformer, batch)(x, SIGMA)
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    save_adapter(method, tmp_path / "a.safetensors", AdapterHeader.describe(method, backbone, {"sampler": {}}))
    fresh = tiny_transformer(in_channels=12)
    loaded = load_adapter(tmp_path / "a.safetensors", fresh)
    assert torch.equal(loaded.velocity(fresh, batch)(x, SIGMA), expected)


def test_a_change_of_weights_is_small_and_exact_to_half_a_step(tmp_path):
    start, end, again = (tiny_transformer() for _ in range(3))
    widen(start)
    widen(end)
    assert start.config.in_channels == 12
    assert torch.equal(start.patch_embedding.weight[:, 4:], torch.zeros(24, 8, 1, 2, 2))
    x, text = torch.randn(2, 12, 3, 4, 6), torch.randn(2, 5, 16)
    plain = denoise(tiny_transformer(), x[:, :4], SIGMA, text)
    torch.testing.assert_close(denoise(start, x, SIGMA, text), plain)
    awaken(end)
    save_change(start, end, tmp_path / "change.safetensors")
    apply_change(again, tmp_path / "change.safetensors")
    for (name, found), expected in zip(again.state_dict().items(), end.state_dict().values(), strict=True):
        assert (found - expected).abs().max() <= 1 / 250, name


# (6) Edits by the trained nano base.


def moving_square(color):
    square = Thing("box", color, motion="moving right", x=0.3, y=0.6, size="large")
    other = Thing("ball", "green", motion="bouncing", x=0.7, y=0.3)
    return Scene("beige", "striped", (other, square), camera="pan left")


@pytest.fixture(scope="module")
def trained():
    backbone = load_backbone("nano_image_to_video", device="cpu")
    assert backbone.transformer.config.in_channels == 36 and backbone.name == "nano_image_to_video"
    return backbone


@pytest.fixture(scope="module")
def square_edits(trained, tmp_path_factory):
    """A red square made blue in the first frame: with the mask, and by naive LoRA, each after a short fit."""
    case = case_of(Edit("color_texture", moving_square("red"), moving_square("blue"), "make the red box blue"))
    naive = replace(case, mask=np.full_like(case.mask, 255))
    found, how = [], Fits(steps=10, sampling=6)
    for number, each in enumerate((case, naive)):
        method = fit_stage(trained, each, {}, how, tmp_path_factory.mktemp(f"fit_{number}"))
        found.append(edit_clip(trained, method, each, case.target[0], how))
    return case, found


def test_a_recoloured_first_frame_reaches_every_later_frame(square_edits):
    case, (edited, _) = square_edits
    for made, source, target, changed in zip(edited, case.source, case.target, case.changed, strict=True):
        made, source, target = (frame[changed].mean(0) for frame in (made, source, target))
        assert np.abs(made - target).sum() < 0.4 * np.abs(made - source).sum()


def test_the_background_is_nearer_to_the_clips_than_by_naive_lora(square_edits):
    case, (edited, naive) = square_edits
    ours, theirs = (scores(case, made)["kept_psnr"] for made in (edited, naive))
    assert ours > theirs + 1


@pytest.mark.slow
def test_the_base_is_made_by_one_command_and_resumes(tmp_path):
    toy = [
        "task=image_to_video", "devices=1", "checkpoint_every=1", "precision=32-true", "out=run",
        "image_to_video.rank=2", "image_to_video.shapes=[[1,5],[2,1]]",
    ]  # fmt: skip
    for more in (["image_to_video.steps=1"], ["image_to_video.steps=2", "resume=true"]):
        done = processes.run("imvideoedit.nano.pretrain", *toy, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "run/image_to_video.safetensors")
    base = load_backbone("nano", device="cpu", parts=()).transformer
    own = base.state_dict()["patch_embedding.weight"].shape[1]
    columns = found.pop("patch_embedding.weight")
    assert columns[:, own:].abs().sum() > 0 and columns[:, :own].eq(0).all()
    names = {name for name, value in found.items() if not name.endswith(".scale") and value.any()}
    assert {f"blocks.0.{name}.weight" for name in ATTENTION + FEED_FORWARD} <= names
    assert not any(name.startswith(("condition_embedder", "proj_out")) for name in names)
    apply_change(base, tmp_path / "run/image_to_video.safetensors")


def test_a_task_that_is_none_is_refused(tmp_path):
    done = processes.run("imvideoedit.nano.pretrain", "task=nothing", cwd=tmp_path)
    assert done.returncode == 2 and "choose text_to_video or image_to_video" in done.stderr
