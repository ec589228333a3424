"""Linear CKA: known answers, invariances, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from points import numbers

from benchmarks.similarity import Moments, maps_cka
from fcbench.core.errors import FcbenchError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA of representations [M, C] and [M, D] of the same examples."""
    moments = Moments(x.shape[1], y.shape[1], 1)
    moments.add(0, x, y)
    return moments.cka(1).value or 0.0


def test_against_its_kernel_form() -> None:
    """HSIC of centred linear kernels: the definition, with [M, M] matrices."""
    y = X @ RNG.normal(size=(6, 4)) + RNG.normal(size=(400, 4))
    centre = np.eye(400) - 1 / 400
    k, q = (centre @ v @ v.T @ centre for v in (X, y))
    expected = (k * q).sum() / np.sqrt((k * k).sum() * (q * q).sum())
    assert linear_cka(X, y) == pytest.approx(expected, rel=1e-9)
    assert linear_cka(X, y) == pytest.approx(linear_cka(y, X))


def test_rotation_scale_and_shift_change_nothing() -> None:
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert linear_cka(X, 7 * X @ rotation - 3) == pytest.approx(1)


def test_noise_is_near_zero_and_half_noise_between() -> None:
    noise = RNG.normal(size=(400, 6))
    assert linear_cka(X, noise) < 0.05
    assert 0.3 < linear_cka(X, X + noise) < 0.95


def test_zeroed_channels_lower_it() -> None:
    maps = RNG.normal(size=(40, 8, 3, 3))
    cut = maps.copy()
    cut[:, :4] = 0
    whole, half = (maps_cka([(maps[:25], v[:25]), (maps[25:], v[25:])], 40) for v in (maps, cut))
    assert whole.value == pytest.approx(1) and whole.low == pytest.approx(1)
    assert numbers(half)[2] < 0.85 and numbers(half)[1] <= numbers(half)[0] <= numbers(half)[2]


def test_interval_narrows_with_more_samples() -> None:
    def width(n: int) -> float:
        a = RNG.normal(size=(n, 3, 2, 2))
        found = maps_cka([(a, a + RNG.normal(size=a.shape))], n)
        return numbers(found)[2] - numbers(found)[1]

    assert width(400) < 0.6 * width(40)


def test_refusals() -> None:
    with pytest.raises(FcbenchError, match="does not vary"):
        linear_cka(X, np.ones((400, 2)))
    with pytest.raises(FcbenchError, match="same samples and grid"):
        maps_cka([(np.zeros((2, 3, 4, 4)), np.zeros((2, 3, 2, 2)))], 2)
    with pytest.raises(FcbenchError, match="empty"):
        maps_cka([], 0)
    with pytest.raises(FcbenchError, match="NaN"):
        Moments(1, 1).add(0, np.full((2, 1), np.nan), np.zeros((2, 1)))
