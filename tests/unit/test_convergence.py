"""Plateaus and remaining gains, on curves whose law is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fcbench.training.convergence import Gain, Look, gain, has_settled, is_due, is_flat

LOOKS = [step for step in range(20_001) if is_due(step)]


def curve(loss: Callable[[int], float], until: int, unit: float = 1.0) -> list[Look]:
    return [Look(step, 0.1 * step, loss(step), unit) for step in LOOKS if step <= until]


@pytest.mark.parametrize("c", [0.3, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("until", [256, 1024, 8192])
def test_the_gain_of_a_power_law_is_its_own(c: float, until: int) -> None:
    def law(step: int) -> float:
        return 2.0 + 0.05 * (step / 1024) ** -c

    found, left = gain(curve(law, until, 0.5)), law(until) - 2.0
    assert found.doubling == pytest.approx(1 - math.exp((law(2 * until) - law(until)) / 0.5), rel=0.15, abs=0.002)
    assert found.rest == pytest.approx(1 - math.exp(-left / 0.5), rel=0.35, abs=0.01)


def test_the_gain_changes_slowly_along_a_noisy_curve() -> None:
    """What a raw slope does not: from one look to the next it may be three times as much."""
    rng = np.random.default_rng(0)
    whole = curve(lambda step: 0.5 + 0.1 * (step / 512) ** -0.4 + rng.normal(0, 3e-4), 4096, 0.25)
    rests = [gain(whole[: n + 1]).rest for n in range(15, len(whole))]
    assert max(abs(b - a) for a, b in zip(rests, rests[1:])) < 0.1
    assert rests[-1] < rests[0] and rests[-1] == pytest.approx(1 - math.exp(-0.1 * 8**-0.4 / 0.25), rel=0.4)


def test_a_loss_that_rises_or_stands_still_has_nothing_to_gain() -> None:
    assert gain(curve(lambda step: 1 + step / 1000, 512)) == Gain(0.0, 0.0)
    assert gain(curve(lambda step: 1.0, 512)).rest < 1e-6


def test_too_few_looks_tell_nothing() -> None:
    assert all(map(math.isnan, gain(curve(lambda step: 1 / step, 53))))
    assert math.isfinite(gain(curve(lambda step: 1 / step, 64)).rest)


def test_a_plateau_is_a_doubling_that_gains_less_than_the_tolerance() -> None:
    def halved(step: int) -> float:
        return 1 + 0.64 * 2.0 ** -(step / 64)

    flat = [look.step for n, look in enumerate(curve(halved, 1000), 1) if is_flat(curve(halved, 1000)[:n], 0.01)]
    assert flat[0] > 256 and halved(flat[0] // 2) - halved(flat[0]) < 0.01
    assert flat == [step for step in LOOKS if flat[0] <= step <= 1000]
    assert not any(is_flat(curve(lambda step: 1.0, until), 0.01) for until in (32, 64, 107))
    assert is_flat(curve(lambda step: 1.0, 128), 0.01)
    assert is_flat(curve(lambda step: 1 + step / 100, 128), 0.01)
    assert not is_flat(curve(lambda step: 1.0, 128), 0.0), "without a tolerance the cap ends a training"


def test_a_training_from_good_weights_has_settled_when_it_ends_flat_and_better() -> None:
    def rises_first(best: float) -> list[Look]:
        return curve(lambda step: 1.0 if step < 40 else best + 40 / step**1.5, 1000)

    assert has_settled(rises_first(0.95), 0.01)
    assert not has_settled(rises_first(1.05), 0.01), "it is no better than it began"
    assert not has_settled(curve(lambda step: 1 + 10 / step**0.5, 1000), 0.01), "it still falls"


def test_looks_are_evenly_spaced_in_the_logarithm() -> None:
    assert all(2 * step in LOOKS or 2 * step + 1 in LOOKS for step in LOOKS if step < 10_000)
    assert len([step for step in LOOKS if 1024 <= step < 2048]) == 4
