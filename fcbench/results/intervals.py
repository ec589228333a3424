"""Bootstrap intervals over samples."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from fcbench.core.errors import FcbenchError

N_RESAMPLES = 1000
TAILS = (2.5, 97.5)  # Percentiles that end an interval
BLOCK = 1 << 21  # Weights in memory at a time: all resamples of up to 2097 samples


def resampling_weights(n_samples: int, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """[R, N] float64: how often each of N samples was drawn in each of R resamples (rows sum to N). Raises
    `FcbenchError`: no samples or no resamples."""
    few = n_samples * n_resamples <= BLOCK
    return _few_weights(n_samples, n_resamples, seed) if few else _all_weights(n_samples, n_resamples, seed)


def _all_weights(n_samples: int, n_resamples: int, seed: int) -> np.ndarray:
    weights = np.concatenate(list(_weights(n_samples, n_resamples, seed)))
    weights.flags.writeable = False
    return weights


_few_weights = lru_cache(maxsize=8)(_all_weights)


def _weights(n_samples: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The rows of `resampling_weights`, `BLOCK` values at a time."""
    if n_samples < 1 or n_resamples < 1:
        raise FcbenchError(f"got {n_samples} samples and {n_resamples} resamples; a bootstrap needs both.")
    rng = np.random.default_rng(seed)
    shares, step = np.full(n_samples, 1 / n_samples), max(1, BLOCK // n_samples)
    for done in range(0, n_resamples, step):
        yield rng.multinomial(n_samples, shares, size=min(step, n_resamples - done)).astype(np.float64)


def resampled(
    stats: np.ndarray,
    values_of: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Metrics under resamples, by name, [R]; tables with equally many samples share resamples, so differences are
    paired. `stats`: [N, S], one row per sample. `values_of`: metric values [R] by name, of statistics [N, S] and
    weights [R, N]. Raises `FcbenchError`: stats not [N, S], NaN in them, no samples."""
    table = np.asarray(stats, dtype=np.float64)
    if table.ndim != 2:
        raise FcbenchError(f"got statistics of shape {list(table.shape)}; need [N, S].")
    if not np.isfinite(table).all():
        raise FcbenchError("got NaN or infinite statistics of a sample; they must be finite sums.")
    parts = [values_of(table, weights) for weights in _weights(len(table), n_resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mean_over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean [R] of values [seeds, R] over seeds, redrawn in each resample: the same draws for all values."""
    n_seeds, n_resamples = values.shape
    shares = resampling_weights(n_seeds, n_resamples, seed=1).T / n_seeds
    return np.asarray((shares * values).sum(axis=0))


def interval(resampled: ArrayLike) -> tuple[float, float]:
    """95 % percentile interval of resampled values [R]. NaN resamples (nothing counted, no overlap) are left out;
    (nan, nan) if they are more than half. An infinite resample counts as one beyond all others."""
    values = np.asarray(resampled, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if 2 * defined.size < values.size or defined.size == 0:
        return float("nan"), float("nan")
    if np.isfinite(defined).all():
        low, high = np.percentile(defined, TAILS)
    else:  # no mean of two neighbours where one is infinite
        low = np.percentile(defined, TAILS[0], method="lower")
        high = np.percentile(defined, TAILS[1], method="higher")
    return float(low), float(high)
