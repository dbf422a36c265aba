import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.flow.guidance import extrapolated, guided
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import SOLVERS, shift_sigma, shifted_sigmas, solve

shape = (2, 4, 1, 4, 4)


@given(st.integers(1, 60), st.floats(0.2, 12), st.floats(0.05, 1))
def test_the_schedule_falls_to_zero(steps, shift, start):
    sigmas = shifted_sigmas(steps, shift, start)
    assert sigmas.shape == (steps + 1,)
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert sigmas[0].item() == pytest.approx(shift * start / (1 + (shift - 1) * start))


def test_the_schedule_has_known_levels():
    assert shifted_sigmas(4, shift=1.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert shifted_sigmas(2, shift=5.0).tolist() == pytest.approx([1, 5 / 6, 0])
    assert shifted_sigmas(3, shift=5.0)[0] == 1


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"shift": 0.0}, {"start": 0.0}, {"start": 1.1}])
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match="need steps"):
        shifted_sigmas(**({"steps": 4} | wrong))


@given(st.floats(0, 1), st.floats(0.2, 12))
def test_a_shift_is_undone_by_its_inverse(u, shift):
    assert shift_sigma(shift_sigma(torch.tensor(u, dtype=torch.float64), shift), 1 / shift).item() == pytest.approx(u)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 7])
def test_a_straight_path_is_solved_exactly(steps, solver):
    clean, noise = torch.randn(2, *shape)
    point, seen = FlowMatching().path(clean, noise, torch.ones(2)), []
    result = SOLVERS[solver](
        lambda x, sigma: point.velocity_BCFHW, noise, shifted_sigmas(steps), lambda step, x: seen.append(step)
    )
    torch.testing.assert_close(result, clean, rtol=1e-3, atol=1e-3)
    assert seen == list(range(steps))


def test_the_second_order_solver_is_closer_and_sees_the_same_levels():
    # The posterior mean of a Gaussian of spread 0.5, whose path is curved and known.
    noise, levels = torch.randn(shape, dtype=torch.float64), {name: [] for name in SOLVERS}

    def velocity(x, sigma, name):
        levels[name].append(sigma[0].item())
        s = float(sigma[0])
        clean = x * (1 - s) * 0.25 / ((1 - s) ** 2 * 0.25 + s**2)
        return (x - clean) / s

    errors = {}
    for name, solver in SOLVERS.items():
        result = solver(lambda x, sigma, name=name: velocity(x, sigma, name), noise, shifted_sigmas(24, 3.0))
        errors[name] = (result - 0.5 * noise).abs().mean().item()
    assert errors["unipc"] < errors["euler"]
    assert levels["unipc"] == pytest.approx(levels["euler"])


def test_a_run_can_begin_on_the_way():
    clean, noise = torch.randn(2, *shape)
    sigmas = shifted_sigmas(5, start=0.6)
    point = FlowMatching().path(clean, noise, sigmas[:1].expand(2))
    torch.testing.assert_close(solve(lambda x, sigma: noise - clean, point.x_BCFHW, sigmas), clean)


def test_the_error_of_a_curved_path_falls_with_the_steps():
    # dx/dσ = x from 1 to 0 ends at x/e; Euler's error is of first order.
    noise = torch.ones(shape, dtype=torch.float64)
    errors = [
        abs(solve(lambda x, sigma: x, noise, shifted_sigmas(steps, shift=1.0)).mean().item() - math.exp(-1))
        for steps in (20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_the_velocity_sees_each_level_once_and_the_callback_each_state():
    asked, states = [], []

    def velocity(x, sigma):
        assert sigma.shape == (2,)
        asked.append(sigma[0].item())
        return torch.ones_like(x)

    sigmas = shifted_sigmas(4)
    result = solve(velocity, torch.zeros(shape), sigmas, lambda step, x: states.append((step, x.mean().item())))
    assert asked == sigmas[:-1].tolist()
    assert [step for step, _ in states] == [0, 1, 2, 3]
    assert [mean for _, mean in states] == pytest.approx((sigmas[1:] - 1).tolist())
    assert states[-1][1] == pytest.approx(result.mean().item())


def test_the_solver_keeps_no_graph():
    scale = torch.ones((), requires_grad=True)
    assert not solve(lambda x, sigma: scale * x, torch.ones(shape), shifted_sigmas(2)).requires_grad


@pytest.mark.parametrize("name", SOLVERS)
def test_a_state_of_several_tensors_is_solved_as_each_alone(name):
    parts = {"video": torch.randn(shape), "tokens": torch.randn(2, 3, 4)}
    slopes = {"video": 0.5, "tokens": -1.5}
    sigmas, seen = shifted_sigmas(6, 3.0), []

    def velocity(state, sigma):
        assert sigma.shape == (2,)
        return {key: slopes[key] * x.sin() for key, x in state.items()}

    result = SOLVERS[name](velocity, parts, sigmas, lambda step, state: seen.append(state.keys()))
    for key, slope in slopes.items():
        alone = SOLVERS[name](lambda x, sigma, slope=slope: slope * x.sin(), parts[key], sigmas)
        assert torch.equal(result[key], alone)
    assert seen == [parts.keys()] * 6


def test_guidance_reaches_each_tensor_of_a_state():
    without = {"video": torch.ones(shape), "tokens": torch.zeros(2, 3)}
    result = extrapolated(without, {"video": torch.zeros(shape), "tokens": torch.ones(2, 3)}, 3.0)
    assert result["video"].eq(-2).all() and result["tokens"].eq(3).all()


def test_guidance_extrapolates_from_the_unconditional_velocity():
    velocity = guided(lambda x, sigma: x + 3, lambda x, sigma: x + 1, 5.0)
    assert torch.equal(velocity(torch.zeros(shape), torch.ones(2)), torch.full(shape, 11.0))


def test_guidance_of_one_asks_for_one_velocity():
    def never(x, sigma):
        raise AssertionError("the unconditional velocity was computed in vain")

    assert guided(lambda x, sigma: x, never, 1.0)(torch.ones(shape), torch.ones(2)).eq(1).all()
