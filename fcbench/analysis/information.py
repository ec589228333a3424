"""Usable information: how many bits about a target a family of readouts can extract from features.

    I_V(X -> Y) = H_V(Y) - H_V(Y | X)        [bits per sample]

H_V(Y | X) is the mean negative log-likelihood, on held-out samples, of a readout trained on the features; H_V(Y) is
that of a readout of the same family trained on a constant input, the *null model*. Both are means over the same
samples, so the difference is paired. Training on finite samples makes H_V(Y | X) too large by about d / (2 n) nats for
d trained weights and n training samples, so information is underestimated; a badly trained null model errs the other
way, so `best_null` takes the best of several. The difference of two encoders needs no null model.

References:
    Y. Xu et al., "A theory of usable information under computational constraints", ICLR 2020, arXiv 2002.10689.
    H. Akaike, "A new look at the statistical model identification", 1974 (the held-out excess of d / (2 n) nats).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fcbench.analysis.estimate import Estimate, estimate
from fcbench.core.errors import FcbenchError
from fcbench.results import intervals
from fcbench.results.intervals import N_RESAMPLES


def bits_between(test: ArrayLike, anchor: ArrayLike, n_resamples: int = N_RESAMPLES) -> Estimate:
    """Bits per sample by which one set of log-likelihoods exceeds another.

    With a null model as the anchor it is the usable information; with another encoder, the difference of information.
    `test, anchor`: [N] or [seeds, N] log-likelihoods in nats of the same held-out samples in the same order. Raises
    `FcbenchError`: shapes that differ, no samples, NaN or inf.
    """
    first, second = _paired(test, anchor)
    excess = (first - second) / math.log(2)
    return estimate(float(excess.mean()), _resampled_means(excess, n_resamples))


def share_kept(test: ArrayLike, ceiling: ArrayLike, null: ArrayLike, n_resamples: int = N_RESAMPLES) -> Estimate:
    """Usable information as a share of that at the ceiling, with a paired interval.

    `test, ceiling, null`: [N] or [seeds, N] log-likelihoods in nats of the same samples in the same order. Raises
    `FcbenchError`: see `bits_between`; also no information at the ceiling.
    """
    gain, base = _paired(test, null)
    whole = _paired(ceiling, null)[0] - base
    if whole.shape != gain.shape:
        raise FcbenchError(_shapes(gain, whole))
    if whole.mean() <= 0:
        raise FcbenchError(
            f"the ceiling holds {whole.mean() / math.log(2):.3g} bits of usable information; "
            "a share needs more than 0."
        )
    above = _resampled_means(gain - base, n_resamples)
    below = _resampled_means(whole, n_resamples)
    resampled = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
    return estimate(float((gain - base).mean() / whole.mean()), resampled)


def best_null(candidates: Sequence[ArrayLike]) -> np.ndarray:
    """The null model with the largest mean log-likelihood, [N] or [seeds, N]. It leaves the least information, so the
    choice is conservative. Raises `FcbenchError`: no candidate."""
    arrays = [np.asarray(c, dtype=np.float64) for c in candidates]
    if not arrays:
        raise FcbenchError("got no null model; usable information needs one.")
    return max(arrays, key=lambda a: float(a.mean()))


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 [seeds, N]."""
    first, second = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (a, b))
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise FcbenchError(_shapes(first, second))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise FcbenchError("got NaN or infinite log-likelihoods; a readout gave a target zero probability.")
    return first, second


def _shapes(a: np.ndarray, b: np.ndarray) -> str:
    return (
        f"got log-likelihoods of shapes {list(a.shape)} and {list(b.shape)}; "
        "need [N] or [seeds, N] of the same samples."
    )


def _resampled_means(values: np.ndarray, n_resamples: int) -> np.ndarray:
    """Means [R] of values [seeds, N] over resampled samples and resampled seeds. Draws are those of
    `fcbench.results.intervals.resampling_weights`: the same for all values of equally many samples."""
    n = values.shape[1]
    return intervals.mean_over_seeds(values @ intervals.resampling_weights(n, n_resamples).T / n)
