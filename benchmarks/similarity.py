"""Similarity of two representations: linear centred kernel alignment (CKA), with an interval.

    CKA(X, Y) = ||Y'X||^2 / (||X'X|| ||Y'Y||)        X [M, C], Y [M, D] centred, Frobenius norms

1 for representations that differ by a rotation and a scale, near 0 for unrelated ones. With few examples and many
channels it is too large, even for noise; the examples here are the positions of the maps of all samples, thousands.

References:
    S. Kornblith et al., "Similarity of neural network representations revisited", ICML 2019, arXiv 1905.00414.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fcbench.analysis.estimate import Estimate, estimate
from fcbench.core.errors import FcbenchError
from fcbench.results import intervals

N_BLOCKS = 20
"""Groups of samples that the bootstrap draws: moments are stored per group, not per sample."""


class Moments:
    """Sums over examples that CKA needs, by block of samples.

    Args:
        n_x, n_y: channels C and D.
    """

    def __init__(self, n_x: int, n_y: int, n_blocks: int = N_BLOCKS) -> None:
        self._n = np.zeros(n_blocks)
        self._x, self._y = np.zeros((n_blocks, n_x)), np.zeros((n_blocks, n_y))
        self._xx = np.zeros((n_blocks, n_x, n_x))
        self._yy = np.zeros((n_blocks, n_y, n_y))
        self._yx = np.zeros((n_blocks, n_y, n_x))

    def add(self, block: int, x: np.ndarray, y: np.ndarray) -> None:
        """Examples [M, C] and [M, D], in the same row order, to a block.

        Raises:
            FcbenchError: another number of rows, NaN or inf.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise FcbenchError(f"got representations {list(x.shape)} and {list(y.shape)}; need [M, C] and [M, D].")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise FcbenchError("got NaN or infinite features; check the weights.")
        x, y = x.astype(np.float64), y.astype(np.float64)
        self._n[block] += len(x)
        self._x[block] += x.sum(axis=0)
        self._y[block] += y.sum(axis=0)
        self._xx[block] += x.T @ x
        self._yy[block] += y.T @ y
        self._yx[block] += y.T @ x

    def cka(self, n_resamples: int = 200) -> Estimate:
        """CKA, in [0, 1], with a 95 % interval from resampled blocks.

        Raises:
            FcbenchError: no examples, or a representation that does not vary.
        """
        whole = self._of(np.ones(len(self._n)))
        if np.isnan(whole):
            raise FcbenchError("a representation does not vary: CKA is not defined.")
        used = self._n > 0
        weights = np.zeros((n_resamples, len(used)))
        weights[:, used] = intervals.resampling_weights(int(used.sum()), n_resamples)
        return estimate(whole, [self._of(w) for w in weights])

    def _of(self, weights: np.ndarray) -> float:
        """CKA of blocks, each counted `weights` times."""
        n = float(weights @ self._n)
        if n == 0:
            return float("nan")
        x, y = weights @ self._x / n, weights @ self._y / n
        norms = []
        for moments, a, b in ((self._yx, y, x), (self._xx, x, x), (self._yy, y, y)):
            summed = np.tensordot(weights, moments, axes=1)
            norms.append(float(np.linalg.norm(summed - n * np.outer(a, b))))
        tiny = 1e-12 * max(1.0, float(np.abs(self._xx).max()), float(np.abs(self._yy).max()))
        if min(norms[1:]) <= tiny:
            return float("nan")
        return norms[0] ** 2 / (norms[1] * norms[2])


def maps_cka(pairs: Iterable[tuple[np.ndarray, np.ndarray]], n_samples: int) -> Estimate:
    """CKA of maps, with every position of every sample as an example.

    Args:
        pairs: batches of maps [B, C, h, w] and [B, D, h, w] of the same samples, in order.
        n_samples: of all batches together.

    Raises:
        FcbenchError: no samples, grids that differ.
    """
    moments, at = None, 0
    n_blocks = min(N_BLOCKS, max(1, n_samples))
    for a, b in pairs:
        if a.shape[-2:] != b.shape[-2:] or len(a) != len(b):
            raise FcbenchError(f"got maps {list(a.shape)} and {list(b.shape)}; need the same samples and grid.")
        if moments is None:
            moments = Moments(a.shape[1], b.shape[1], n_blocks)
        for x, y in zip(a, b):
            block = at * n_blocks // n_samples
            moments.add(block, x.reshape(len(x), -1).T, y.reshape(len(y), -1).T)
            at += 1
    if moments is None:
        raise FcbenchError("no features to compare: the set is empty.")
    return moments.cka()
