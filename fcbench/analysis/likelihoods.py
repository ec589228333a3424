"""Log-likelihoods of a point's targets over its seeds: what `fcbench.analysis.information` is computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fcbench.results import samples


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Of one operating point with all its seeds: given and null [seeds, N] nats, in order of the sample ids.

    Attributes:
        null: None where a point keeps none.
    """

    ids: tuple[str, ...]
    given: np.ndarray
    null: np.ndarray | None


def over_seeds(points: Iterable[tuple[str, str]]) -> OverSeeds | None:
    """Likelihoods of (folder, point) pairs, one a seed; None where one has none or holds other samples.

    Raises:
        FcbenchError: a point without samples, or a damaged file.
    """
    ids, given, null = set[tuple[str, ...]](), list[np.ndarray](), list[np.ndarray]()
    for folder, point in points:
        table = samples.load_samples(folder, point)
        if table.log_likelihood is None:
            return None
        order = np.argsort(np.array(table.ids, dtype=str), kind="stable")
        ids.add(tuple(table.ids[i] for i in order))
        given.append(table.log_likelihood[order])
        if table.null_log_likelihood is not None:
            null.append(table.null_log_likelihood[order])
    if len(ids) != 1:
        return None
    nulls = np.stack(null) if len(null) == len(given) else None
    return OverSeeds(ids.pop(), np.stack(given), nulls)
