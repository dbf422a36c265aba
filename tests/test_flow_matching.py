import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.flow.matching import FlowMatching

shape = (3, 4, 2, 4, 4)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_path_is_straight(sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, *shape, generator=generator)
    point = FlowMatching().path(clean, noise, torch.full((3,), sigma))
    # Following the velocity for the rest of the time leads to the noise, back to the clean latents.
    torch.testing.assert_close(point.x_BCFHW + (1 - sigma) * point.velocity_BCFHW, noise)
    torch.testing.assert_close(point.x_BCFHW - sigma * point.velocity_BCFHW, clean)


def test_the_ends_are_exact_and_each_sample_has_its_own_level():
    clean, noise = torch.randn(2, *shape)
    point = FlowMatching().path(clean, noise, torch.tensor([0.0, 1.0, 0.5]))
    assert torch.equal(point.x_BCFHW[0], clean[0])
    assert torch.equal(point.x_BCFHW[1], noise[1])
    torch.testing.assert_close(point.x_BCFHW[2], (clean[2] + noise[2]) / 2)


def test_the_loss_is_the_squared_error_of_each_sample():
    wanted = torch.randn(shape)
    predicted = wanted.clone()
    predicted[1] += 2
    predicted[2, 0] += 2
    assert FlowMatching().loss(predicted, wanted).tolist() == pytest.approx([0, 4, 1])


def test_the_loss_is_taken_in_float32():
    wanted = torch.zeros(shape, dtype=torch.bfloat16)
    loss = FlowMatching().loss(wanted + 0.1, wanted)
    assert loss.dtype == torch.float32
    assert loss.shape == (3,)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_levels_follow_their_distribution(distribution, shift):
    sigma = FlowMatching(shift, distribution).sample_sigma(20_000, torch.Generator().manual_seed(0))
    assert sigma.dtype == torch.float32
    assert 0 <= sigma.min() and sigma.max() <= 1
    # Both have their median at 1/2 before the shift, which maps it to s/(1+s); the quartiles tell them apart.
    quartile = {"uniform": 0.25, "logit_normal": 0.3375}[distribution]
    for share, u in ((0.5, 0.5), (0.25, quartile), (0.75, 1 - quartile)):
        assert sigma.quantile(share).item() == pytest.approx(shift * u / (1 + (shift - 1) * u), abs=0.012)


def test_a_seed_fixes_the_levels():
    draws = [FlowMatching().sample_sigma(4, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("wrong", [{"shift": 0.0}, {"shift": -1.0}, {"distribution": "normal"}])
def test_wrong_settings_name_themselves(wrong):
    with pytest.raises(UserError, match=f"objective.{next(iter(wrong))}"):
        FlowMatching(**wrong)


def test_change_share_moves_loss_to_where_the_pair_differs_and_keeps_its_size():
    source = torch.randn(3, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    target = source.clone()
    target[0, :, :, 0, :2] += 1.0  # 2 of 16 pixels
    target[1] += 1.0
    weights = FlowMatching(change_share=0.5).weights(source, target)
    assert weights.shape == (3, 1, 1, 4, 4)
    torch.testing.assert_close(weights.mean((1, 2, 3, 4)), torch.ones(3))
    assert weights[0, 0, 0, 0, 0] == 0.5 + 0.5 * 8 and weights[0, 0, 0, 3, 3] == 0.5
    assert (weights[1:] == 1).all()
    assert FlowMatching().weights(source, target) is None
    error = torch.zeros_like(source)
    error[0, :, :, 0, 0] = 1.0
    plain, weighted = (FlowMatching.loss(error, torch.zeros_like(error), w)[0] for w in (None, weights))
    torch.testing.assert_close(weighted, 4.5 * plain)
    with pytest.raises(UserError, match="change_share"):
        FlowMatching(change_share=1.5)
