"""Usable information against known answers: a discrete channel, a Gaussian pair; its bias at few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from points import numbers
from scipy.special import digamma
from torch import Tensor

from fcbench.analysis.information import best_null, bits_between, share_kept
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.features import feature_set
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.measure import density
from fcbench.transmit import senders

Pair = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
Fitted = tuple[np.ndarray, np.ndarray]
"""Held-out log-likelihoods [N] of the readout and of the null model."""


# ------------------------------------------------------------------------------- two known families
def channel(p: float) -> Pair:
    """A fair bit, flipped with probability p: I = 1 - H(p)."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(0, 2, n)
        return x, x ^ (rng.random(n) < p)

    return draw


def gaussian(rho: float) -> Pair:
    """Two standard normals of correlation rho: I = 1/2 log2 1 / (1 - rho^2)."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=n)
        return x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)

    return draw


def entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def gaussian_bits(rho: float) -> float:
    return 0.5 * math.log2(1 / (1 - rho**2))


def counted(rng: np.random.Generator, pair: Pair, n_train: int, n_test: int) -> Fitted:
    """Family of the channel: a table of the target's frequencies for each input (half a count added to each)."""
    (x, y), (xt, yt) = pair(rng, n_train), pair(rng, n_test)
    table = np.array([[(y[x == a] == b).sum() + 0.5 for b in (0, 1)] for a in (0, 1)])
    table /= table.sum(axis=1, keepdims=True)
    null = np.array([(y == b).sum() + 0.5 for b in (0, 1)])
    return np.log(table)[xt, yt], np.log(null / null.sum())[yt]


def regressed(rng: np.random.Generator, pair: Pair, n_train: int, n_test: int) -> Fitted:
    """Linear-Gaussian family: least squares with its residual deviation; the null has mean and deviation alone."""
    (x, y), (xt, yt) = pair(rng, n_train), pair(rng, n_test)
    slope, shift = np.polyfit(x, y, 1)
    return (normal(yt - slope * xt - shift, np.std(y - slope * x - shift)), normal(yt - y.mean(), np.std(y)))


def normal(residual: np.ndarray, deviation: float) -> np.ndarray:
    square = (residual / deviation) ** 2
    return np.asarray(-0.5 * (square + math.log(2 * math.pi)) - math.log(deviation))


# ------------------------------------------------------------------------------------ known answers
@pytest.mark.parametrize("p", [0.02, 0.11, 0.3, 0.5])
def test_noisy_channel(p: float) -> None:
    found = bits_between(*counted(np.random.default_rng(0), channel(p), 20_000, 20_000), 300)
    assert found.value == pytest.approx(1 - entropy(p), abs=0.012)
    assert numbers(found)[1] <= 1 - entropy(p) + 0.003 and 1 - entropy(p) <= numbers(found)[2] + 0.003


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, 0.99])
def test_gaussian_pair(rho: float) -> None:
    found = bits_between(*regressed(np.random.default_rng(1), gaussian(rho), 20_000, 20_000), 300)
    assert found.value == pytest.approx(gaussian_bits(rho), abs=0.02)
    assert numbers(found)[1] - 0.003 <= gaussian_bits(rho) <= numbers(found)[2] + 0.003


def test_interval_covers() -> None:
    """Of 200 intervals of 95 %, 90 to 99 % hold the information of the readout as it was fitted."""
    rng, pair, truth, inside = np.random.default_rng(2), gaussian(0.6), 0.0, 0
    for _ in range(200):
        held_out = regressed(rng, pair, 2000, 150)
        found = bits_between(*held_out, 100)
        truth = gaussian_bits(0.6)
        inside += numbers(found)[1] <= truth <= numbers(found)[2]
    assert 180 <= inside <= 198


def exact_bias(n: int) -> float:
    """Expected estimate less the truth [bits] of the linear-Gaussian family fitted on n normal samples, at any rho.

    With k means fitted, n times the fitted variance is chi-squared of n - k degrees of freedom, and the squared error
    of a new sample is larger by (n + 1) / n, and by (n - 2) / (n - 3) for the slope.
    """

    def cross_entropy(k: int, error: float) -> float:
        return float(digamma((n - k) / 2) + (n + 1) * error / (n - k - 2)) / 2

    return (cross_entropy(1, 1) - cross_entropy(2, (n - 2) / (n - 3))) / math.log(2)


@pytest.mark.parametrize("n_train", [20, 50, 200])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_bias_at_few_samples(n_train: int, rho: float) -> None:
    """Never too much: too little by 1 / (2 n ln 2) bits and terms of 1 / n^2, the readout having one number more."""
    rng, repetitions = np.random.default_rng(3), 800
    given = [regressed(rng, gaussian(rho), n_train, 400) for _ in range(repetitions)]
    errors = [np.mean(a - b) / math.log(2) - gaussian_bits(rho) for a, b in given]
    bias, error = np.mean(errors), np.std(errors) / math.sqrt(repetitions)
    assert abs(bias - exact_bias(n_train)) < 4 * error
    assert exact_bias(n_train) < -1 / (2 * n_train * math.log(2))


def test_bias_is_of_the_first_order() -> None:
    for n in (500, 2000):
        assert exact_bias(n) == pytest.approx(-1 / (2 * n * math.log(2)), rel=30 / n)


def test_readout_too_large_for_its_samples_finds_nothing() -> None:
    """Forty inputs of pure noise, fitted on fifty samples: less than nothing, never information that is not there."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(1050, 40)), rng.normal(size=1050)
    weights, *_ = np.linalg.lstsq(x[:50], y[:50], rcond=None)
    given = normal(y[50:] - x[50:] @ weights, float(np.std(y[:50] - x[:50] @ weights)))
    null = normal(y[50:] - y[:50].mean(), float(np.std(y[:50])))
    assert numbers(bits_between(given, null))[2] < 0


# ---------------------------------------------------------------------------------------- differences
def test_difference_needs_no_null_and_is_paired() -> None:
    """A noisier channel costs H(p') - H(p); pairing makes the interval narrower than that of two samples apart."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 4000)
    noise = rng.random(4000)
    general, special = (np.where(noise < p, math.log(p), math.log(1 - p)) for p in (0.1, 0.2))
    found = bits_between(special, general)
    assert found.value == pytest.approx(entropy(0.1) - entropy(0.2), abs=0.05)
    assert numbers(found)[2] < 0
    other = bits_between(rng.permutation(special), general)
    assert numbers(found)[2] - numbers(found)[1] < 0.8 * (numbers(other)[2] - numbers(other)[1])
    assert y.size == 4000


def test_nothing_between_a_thing_and_itself() -> None:
    values = np.random.default_rng(6).normal(size=(3, 40))
    found = bits_between(values, values)
    assert numbers(found) == (0, 0, 0)


def test_seeds_widen_the_interval() -> None:
    base = np.random.default_rng(7).normal(size=100)
    one = bits_between(base + 1, base)
    several = bits_between(base + np.array([[0.5], [1.0], [1.5]]), np.stack([base] * 3))
    assert several.value == pytest.approx(one.value)
    assert numbers(several)[2] - numbers(several)[1] > 0.5 > numbers(one)[2] - numbers(one)[1]


def test_share_of_the_ceiling() -> None:
    rng = np.random.default_rng(8)
    null = rng.normal(-4, 1, 200)
    ceiling = null + rng.uniform(1, 3, 200)
    found = share_kept(null + 0.25 * (ceiling - null), ceiling, null)
    assert found.value == pytest.approx(0.25)
    assert numbers(found)[1] == pytest.approx(0.25) and numbers(found)[2] == pytest.approx(0.25)
    assert share_kept(ceiling, ceiling, null).value == 1
    with pytest.raises(FcbenchError, match="more than 0"):
        share_kept(ceiling, null, ceiling)


def test_best_null_leaves_the_least() -> None:
    weak, strong = np.full(5, -9.0), np.full(5, -2.0)
    given = np.full(5, -1.0)
    assert best_null([weak, strong]) is not None
    assert bits_between(given, best_null([weak, strong])).value == pytest.approx(1 / math.log(2))


@pytest.mark.parametrize(
    ("test", "anchor", "words"),
    [
        ([1.0, 2.0], [1.0], "shapes"),
        ([], [], "shapes"),
        ([1.0, float("nan")], [1.0, 2.0], "NaN"),
        ([1.0, float("-inf")], [1.0, 2.0], "infinite"),
    ],
)
def test_refusals(test: list[float], anchor: list[float], words: str) -> None:
    with pytest.raises(FcbenchError, match=words):
        bits_between(test, anchor)


def test_no_null_is_refused() -> None:
    with pytest.raises(FcbenchError, match="null"):
        best_null([])


def test_a_scale_is_fitted_to_no_more_samples_than_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tuple(SampleInfo(str(i), i, (32, 32)) for i in range(20))
    maps = {"s": torch.zeros(20, 4, 2, 2)}
    features = FeatureSet("key", samples, (), (32, 32), {"s": FeatureSpec("s", 4, 16)}, {"s": (2, 2)}, maps)
    sample_bytes, batches = features.n_bytes // 20, list[int]()
    monkeypatch.setattr(feature_set, "RAM_LIMIT_BYTES", 10 * sample_bytes)
    monkeypatch.setattr(senders, "EVAL_BYTES", 4 * sample_bytes)

    def model(batch: Mapping[str, Tensor]) -> Tensor:
        batches.append(len(batch["s"]))
        return batch["s"]

    source = SimpleNamespace(train=SimpleNamespace(features=features))
    recipe: Any = SimpleNamespace(source=source, task=SimpleNamespace(collate=lambda targets: None))
    readout: Any = model
    readout.head = None
    density._training_likelihood(recipe, readout, lambda indices: [])  # type: ignore[arg-type]
    assert batches == [4, 4, 2]
