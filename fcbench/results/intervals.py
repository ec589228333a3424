"""Bootstrap intervals over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from fcbench.core.errors import FcbenchError

N_RESAMPLES = 1000
BLOCK = 1 << 21  # Weights in memory at a time: all resamples of up to 2097 samples


def resampling_weights(n_samples: int, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """[R, N] float64: how often each of N samples was drawn in each of R resamples (rows sum to N). Raises
    `FcbenchError`: no samples or no resamples."""
    few = n_samples * n_resamples <= BLOCK
    return _few_weights(n_samples, n_resamples, seed) if few else _all_weights(n_samples, n_resamples, seed)


def _all_weights(n_samples: int, n_resamples: int, seed: int) -> np.ndarray:
    found = np.concatenate(list(_weights(n_samples, n_resamples, seed)))
    found.flags.writeable = False
    return found


_few_weights = lru_cache(maxsize=8)(_all_weights)


def _weights(n_samples: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The rows of `resampling_weights`, `BLOCK` values at a time."""
    if n_samples < 1 or n_resamples < 1:
        raise FcbenchError(f"got {n_samples} samples and {n_resamples} resamples; a bootstrap needs both.")
    rng = np.random.default_rng(seed)
    shares, step = np.full(n_samples, 1 / n_samples), max(1, BLOCK // n_samples)
    for done in range(0, n_resamples, step):
        yield rng.multinomial(n_samples, shares, size=min(step, n_resamples - done)).astype(np.float64)


def paired_bootstrap(
    tables: Sequence[np.ndarray],
    values_fn: Callable[[np.ndarray], np.ndarray],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[np.ndarray]:
    """Metric of several tables under the same resamples, so that their differences are paired.

    `tables`: of additive statistics, each [N, S] over the same samples in the same order. `values_fn`: metric values
    [R] of summed statistics [R, S]. Returns one array [R] per table. Raises `FcbenchError`: tables of different N or
    not [N, S], NaN in one, no samples.
    """
    arrays = _checked(tables)
    sums: list[list[np.ndarray]] = [[] for _ in arrays]
    for weights in _weights(len(arrays[0]), n_resamples, seed):
        for found, a in zip(sums, arrays):
            found.append(weights @ a)
    return [np.asarray(values_fn(np.concatenate(s)), dtype=np.float64).reshape(n_resamples) for s in sums]


def resampled(
    stats: np.ndarray,
    values_of: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Metrics under resamples, by name, [R]. `stats`: [N, S] of each sample. `values_of`: metric values [R] by name of
    statistics [N, S] and weights [R, N]. Raises `FcbenchError`: stats not [N, S], NaN in them, no samples."""
    (table,) = _checked([stats])
    parts = [values_of(table, weights) for weights in _weights(len(table), n_resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mean_over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean [R] of values [seeds, R] over seeds, which each resample draws anew: the same draws for all values."""
    n_seeds, n_resamples = values.shape
    shares = resampling_weights(n_seeds, n_resamples, seed=1).T / n_seeds
    return np.asarray((shares * values).sum(axis=0))


def interval(resampled: ArrayLike, percent: float = 95.0) -> tuple[float, float]:
    """Percentile interval of resampled values [R]. Resamples that are NaN (nothing counted, no overlap) are left out;
    (nan, nan) where they are more than half."""
    values = np.asarray(resampled, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if 2 * defined.size < values.size or defined.size == 0:
        return float("nan"), float("nan")
    tail = (100 - percent) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def _checked(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tables of statistics as float64 [N, S]."""
    arrays = [np.asarray(t, dtype=np.float64) for t in tables]
    shapes = [list(a.shape) for a in arrays]
    if not arrays or any(a.ndim != 2 or len(a) != len(arrays[0]) for a in arrays):
        raise FcbenchError(f"got tables of shapes {shapes}; need [N, S] over the same samples in each.")
    if not all(np.isfinite(a).all() for a in arrays):
        raise FcbenchError("got NaN or infinite statistics of a sample; they must be finite sums.")
    return arrays
