"""Every metric on videos whose answer theory gives."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.image import StructuralSimilarityIndexMeasure

from imvideoedit.evaluation.metrics.alignment import frame_alignment, preference, video_alignment
from imvideoedit.evaluation.metrics.flow import between, tvl1, visible, warp
from imvideoedit.evaluation.metrics.frames import batches, pairs, to_float
from imvideoedit.evaluation.metrics.rebuild import rebuilt_pairs
from imvideoedit.evaluation.metrics.source import (
    colour_drift,
    outside_lpips,
    outside_psnr,
    outside_ssim,
    perceptual,
    round_trip,
    structural,
)
from imvideoedit.evaluation.metrics.temporal import flicker, neighbour_similarity, warped_error
from imvideoedit.evaluation.vbench.dimensions import (
    aesthetic_quality,
    consistency,
    dynamic_degree,
    imaging_quality,
    motion_smoothness,
)
from imvideoedit.wan.backbone import load_backbone
from tests.edited_clips import SIDE, alternating, flickering, frozen, moving


def pixels(batch: torch.Tensor) -> torch.Tensor:
    """Unit vectors of centred pixels: a network that sees everything."""
    return F.normalize((batch - 0.5).flatten(1), dim=1)


def seen(video: np.ndarray) -> torch.Tensor:
    return torch.cat([pixels(batch) for batch in batches(video)])


def exact(speed: int):
    """The flow of ``moving(…, speed)``, known: forwards to the left, backwards to the right."""

    def flow(first, second):
        forwards = (first[:, :, speed:] - second[:, :, : SIDE - speed]).abs().mean() < 1e-6
        return torch.stack([torch.full((SIDE, SIDE), float(-speed if forwards else speed)), torch.zeros(SIDE, SIDE)])

    return flow


@pytest.mark.parametrize("measure", [consistency, neighbour_similarity])
def test_consistency_is_one_for_a_frozen_video_and_falls_with_motion_and_with_alternation(measure):
    values = [measure(seen(video)) for video in (frozen(5), moving(5, 1), moving(5, 2), alternating(5))]
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values == sorted(values, reverse=True) and values[3] < 0.6
    assert np.isnan(measure(seen(frozen(1))))


def test_vbench_consistency_is_the_mean_of_first_and_former_with_negative_ones_as_zero():
    features = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]]), dim=1)
    by_hand = [(0 + 0) / 2, (0 + 0) / 2, (0 + 0.5**0.5) / 2]
    assert consistency(features) == pytest.approx(np.mean(by_hand))


def test_a_texture_of_known_speed_has_that_flow():
    video = moving(2, 2)
    flow = tvl1(*map(to_float, video))[:, 8:-8, 8:-8]
    assert float(flow[0].median()) == pytest.approx(-2, abs=0.1) and float(flow[1].median()) == pytest.approx(
        0, abs=0.1
    )


@pytest.mark.parametrize("speed", [0, 1, 4])
def test_warping_by_the_known_flow_undoes_the_motion(speed):
    first, second = map(to_float, moving(2, speed))
    flow = exact(speed)(first, second)
    back, inside = warp(second, flow)
    assert int(inside.sum()) == SIDE * (SIDE - speed)
    assert torch.allclose(back[:, inside], first[:, inside], atol=1e-5)
    assert torch.equal(visible(flow, -flow)[:, 2 * speed : SIDE - 2 * speed].all(), torch.tensor(True))


def test_the_frame_between_two_is_the_one_that_was_left_out():
    video = moving(3, 2)
    middle = between(to_float(video[0]), to_float(video[2]), exact(4))
    assert torch.allclose(middle[:, :, 6:-6], to_float(video[1])[:, :, 6:-6], atol=1e-5)


def test_smoothness_is_one_for_a_frozen_and_a_steadily_moving_video_and_falls_with_flicker_and_alternation():
    still, steady = motion_smoothness(frozen(5), tvl1), motion_smoothness(moving(5, 1), tvl1)
    flickers = [
        motion_smoothness(flickering(5, amplitude), lambda a, b: torch.zeros(2, SIDE, SIDE)) for amplitude in (4, 8)
    ]
    jumps = motion_smoothness(alternating(5), lambda a, b: torch.zeros(2, SIDE, SIDE))
    assert still == pytest.approx(1, abs=1e-6) and steady > 0.97
    assert flickers == [pytest.approx(1 - 4 / 255, abs=1e-6), pytest.approx(1 - 8 / 255, abs=1e-6)]
    assert steady > flickers[1] > jumps
    assert np.isnan(motion_smoothness(frozen(2), tvl1))


def test_dynamic_degree_asks_for_six_pixels_at_256():
    threshold = 6 * SIDE / 256  # 1.125 pixels
    flows = {speed: lambda a, b, speed=speed: torch.full((2, SIDE, SIDE), speed / 2**0.5) for speed in (1.0, 1.2)}
    video = frozen(8)
    assert dynamic_degree(video, 8, flows[1.0]) == 0 and dynamic_degree(video, 8, flows[1.2]) == 1
    assert dynamic_degree(video, 4, flows[1.2]) == 0, "at 4 frames a second twice the way is asked for"
    assert threshold == 1.125
    assert dynamic_degree(frozen(8), 8, tvl1) == 0 and dynamic_degree(moving(4, 3), 8, tvl1) == 1
    assert dynamic_degree(frozen(1), 8, tvl1) == 0


def test_a_quarter_of_the_sampled_frames_must_move():
    calls = iter([True, True, False, False, False, False, False, False] * 2)
    fast = lambda a, b: torch.full((2, SIDE, SIDE), 9.0 if next(calls) else 0.0)  # noqa: E731
    assert dynamic_degree(frozen(9), 8, fast) == 1  # 2 of round(9 / 4)
    calls = iter([True, False, False, False, False, False, False, False])
    assert dynamic_degree(frozen(9), 8, fast) == 0
    assert [len(list(pairs(range(9), step))) for step in (1, 2, 3)] == [8, 4, 2]


def test_flicker_of_known_amplitude_is_that_amplitude():
    for amplitude in (0, 3, 10):
        video = flickering(6, amplitude)
        assert flicker(video) == amplitude
        assert warped_error(video, frozen(6), lambda a, b: torch.zeros(2, SIDE, SIDE)) == pytest.approx(
            amplitude, abs=1e-4
        )


def test_warped_error_follows_the_source_and_sees_what_does_not():
    source = moving(4, 2)
    recoloured = 255 - source
    assert warped_error(recoloured, source, exact(2)) == pytest.approx(0, abs=1e-3)
    assert warped_error(frozen(4), source, exact(2)) > 10, "a frozen edit does not move as its source"
    assert warped_error(recoloured, source, tvl1) < 3 < warped_error(alternating(4), source, tvl1)
    with pytest.raises(ValueError, match="48, 48"):
        warped_error(source[:, :, :40], source, tvl1)


def test_colour_drift_outside_the_edit_is_the_shift_that_was_made():
    source = np.full((3, SIDE, SIDE, 3), 119, np.uint8)  # L* of 50
    mask = np.zeros_like(source)
    mask[:, :, : SIDE // 3] = 255
    edited = source.copy()
    edited[:, :, : SIDE // 3] = [255, 0, 0]
    assert colour_drift(edited, source, mask) == 0 == colour_drift(edited, source)
    edited[:, :, SIDE // 3 :] += 10  # L* rises by 3.9, near a CIEDE2000 of the same
    assert colour_drift(edited, source, mask) == pytest.approx(3.9, abs=0.2)
    assert colour_drift(source, source, mask) == 0


def test_what_is_kept_outside_the_mask_is_counted_as_five_bench_does():
    source = moving(3, 1)
    mask = np.zeros_like(source)
    mask[:, :, : SIDE // 2] = 255
    edited = source.copy()
    edited[:, :, : SIDE // 2] = 255 - edited[:, :, : SIDE // 2]
    apart = lambda a, b: (a - b).abs().flatten(1).mean(1)  # noqa: E731
    measures = (outside_psnr, outside_ssim, lambda *videos: outside_lpips(*videos, apart))
    assert [measure(edited, source, mask) for measure in measures] == [60, pytest.approx(1), 0]
    assert all(math.isnan(measure(edited, source, None)) for measure in measures)
    assert all(math.isnan(measure(edited, source, np.full_like(mask, 255))) for measure in measures)
    edited[:, :, SIDE // 2 :] = np.where(source[:, :, SIDE // 2 :] > 127, 117, 137)
    kept = (mask == 0).astype(np.float64)
    error = (((edited.astype(float) - source) * kept) ** 2).mean(axis=(1, 2, 3))
    assert outside_psnr(edited, source, mask) == pytest.approx(float(np.mean(10 * np.log10(255**2 / error))))
    black = ((video[0] * kept[0]).astype(np.float32) / 255 for video in (edited, source))
    one = (torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in black)
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(*one)
    assert outside_ssim(edited[:1], source[:1], mask[:1]) == pytest.approx(float(expected), abs=1e-5)


def test_structure_is_whole_for_the_source_itself_and_falls_with_change():
    source = moving(3, 1)
    assert structural(source, source) == pytest.approx(1)
    assert (
        structural(source, source)
        > structural(flickering(3, 10), frozen(3))
        > structural(alternating(3)[::-1], frozen(3))
    )
    apart = lambda a, b: (a - b).abs().flatten(1).mean(1)  # noqa: E731
    assert perceptual(source, source, apart) == 0
    assert perceptual(flickering(4, 10), flickering(4, 0), apart) == pytest.approx(10 / 255 / 2)


def test_the_autoencoders_cost_is_that_of_its_pictures():
    source = frozen(4)
    assert round_trip((frame, frame) for frame in source) == pytest.approx(60)
    assert round_trip((frame, frame.clip(0, 250) + np.uint8(5)) for frame in source) == pytest.approx(34.15, abs=0.1)


def test_every_frame_meets_its_own_copy_from_the_autoencoder():
    backbone = load_backbone("nano", device="cpu", parts=("vae",))
    source = moving(11, 1)
    read = list(rebuilt_pairs(source, len(source), backbone))
    group = backbone.vae_temporal
    assert len(read) == (len(source) - 1) // group * group + 1
    whole = backbone.decode_video(
        backbone.encode_video(torch.from_numpy(source[: len(read)]).permute(3, 0, 1, 2)[None] / 127.5 - 1)
    )
    for number, (original, rebuilt) in enumerate(read):
        assert np.array_equal(original, source[number])
        assert np.abs(rebuilt / 127.5 - 1 - whole[0, :, number].permute(1, 2, 0).numpy()).max() < 0.02


def test_text_alignment_is_the_cosine_in_percent():
    text = F.normalize(torch.tensor([3.0, 4.0]), dim=0)
    features = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1)
    assert frame_alignment(features, text) == pytest.approx(70)
    assert video_alignment(features, text) == pytest.approx(100 * 1.4 / 2**0.5)
    assert preference(features, text, 50.0) == pytest.approx(35)
    assert frame_alignment(text.expand(3, 2), text) == pytest.approx(100) == video_alignment(text.expand(3, 2), text)


def test_quality_is_the_mean_of_the_frames_on_its_scale():
    video = flickering(4, 0)
    bright = lambda batch: 100 * batch.mean((1, 2, 3))  # noqa: E731
    assert imaging_quality(video, bright) == pytest.approx(video.mean() / 255, abs=1e-4)
    sizes = []
    wide = np.zeros((1, 20, 1024, 3), np.uint8)
    imaging_quality(wide, lambda batch: sizes.append(batch.shape[-2:]) or bright(batch))
    assert sizes == [(10, 512)]
    images = lambda batch: torch.ones(len(batch), 2)  # noqa: E731
    assert aesthetic_quality(video, images, lambda features: 3 * features.sum(1)) == pytest.approx(0.6)
