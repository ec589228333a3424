"""The paired bootstrap over the samples of a results folder: rates and metric values of many points at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fcbench.analysis import distortion
from fcbench.analysis.resampled_curves import Resampled
from fcbench.analysis.situations import MetricValues, MetricValuesOf
from fcbench.analysis.variants import FOLDER
from fcbench.core.errors import FcbenchError
from fcbench.results import intervals
from fcbench.results.samples import SAMPLES, SampleTable, has_samples, load_samples


class Point(NamedTuple):
    """One operating point and seed, as measured."""

    folder: str
    key: str  # empty for a published point
    rate: float
    value: float
    n_bytes: int


def points(rows: pd.DataFrame, x: str = "bpp") -> list[Point]:
    """Points of one operating point's rows, in order of the seed."""
    columns = rows.sort_values("seed")[[FOLDER, "point", x, "value", "n_bytes"]]
    return [Point(*row) for row in columns.itertuples(index=False, name=None)]


class _Drawn(NamedTuple):
    """One point under R resamples: sample ids, size relative to the measured one [R], values by metric [R]."""

    ids: tuple[str, ...]
    size: np.ndarray
    values: dict[str, np.ndarray]


class Bootstrap:
    """Resamples of points; each point's samples are read once. `n_resamples`: R."""

    def __init__(self, metric_values_of: MetricValuesOf, n_resamples: int) -> None:
        self._metric_values_of = metric_values_of
        self._n_resamples = n_resamples
        self._weights: dict[int, np.ndarray] = {}
        self._drawn: dict[tuple[str, str, str], _Drawn | None] = {}
        self._absent: dict[str, int] = {}
        self._no_values: set[str] = set()
        self._unpaired: set[str] = set()

    def curves(
        self, lines: Sequence[tuple[Sequence[Sequence[Point]], bool]], task: str, metric: str
    ) -> list[Resampled]:
        """Curves under the same resamples; None if one lacks samples or their images differ.

        `lines`: for each curve its points, by operating point then seed, and whether higher is better. Raises
        `FcbenchError`: samples that are damaged or do not reproduce the value of their row.
        """
        every = [p for by_point, _ in lines for by_seed in by_point for p in by_seed]
        drawn = {p: self._point(p, task, metric) for p in every}
        with_samples = {p: d for p, d in drawn.items() if d is not None}
        if len(with_samples) < len(drawn):
            return []
        if len({d.ids for d in with_samples.values()}) != 1:
            self._unpaired.add(task)
            return []
        out = []
        for by_point, higher in lines:
            rates = [np.stack([p.rate * with_samples[p].size for p in by_seed]) for by_seed in by_point]
            values = [np.stack([with_samples[p].values[metric] for p in by_seed]) for by_seed in by_point]
            mean_rates, mean_values = (
                np.stack([intervals.mean_over_seeds(v) for v in side]) for side in (rates, values)
            )
            out.append(Resampled(mean_rates, mean_values, higher))
        return out

    def notes(self) -> list[str]:
        """What intervals lack, one line each."""
        lines = [
            f"no samples of {n} points in {Path(folder) / SAMPLES}: the intervals that need them are empty"
            for folder, n in self._absent.items()
        ]
        for tasks, what in (
            (self._no_values - {distortion.TASK}, "its plug-in gives no values of these statistics"),
            (self._no_values & {distortion.TASK}, "older results hold no errors of samples"),
            (self._unpaired, "points hold different samples"),
        ):
            lines += [f"{t}: {what}, so intervals are empty" for t in sorted(tasks)]
        return lines

    def _point(self, point: Point, task: str, metric: str) -> _Drawn | None:
        at = point.folder, point.key, task
        if at not in self._drawn:
            self._drawn[at] = self._draw(point, task)
        drawn = self._drawn[at]
        if drawn is not None and metric not in drawn.values:
            self._no_values.add(task)
            return None
        return drawn

    def _draw(self, point: Point, task: str) -> _Drawn | None:
        if not point.key:  # published curves have no samples
            return None
        if not has_samples(Path(point.folder), point.key):
            self._absent[point.folder] = self._absent.get(point.folder, 0) + 1
            return None
        table = load_samples(point.folder, point.key)
        stats, metric_values = self._statistics(table, task)
        if stats is None or metric_values is None:
            self._no_values.add(task)
            return None
        n = len(table.ids)
        if n not in self._weights:
            self._weights[n] = intervals.resampling_weights(n, self._n_resamples)
        order = sorted(range(n), key=lambda i: table.ids[i])
        try:
            values = metric_values(stats[order], self._weights[n])
            whole = metric_values(stats, np.ones((1, n)))
        except (IndexError, ValueError):  # another number of statistics than in this version
            self._no_values.add(task)
            return None
        if not any(np.isclose(v[0], point.value, rtol=1e-6) for v in whole.values()):
            raise FcbenchError(
                f"the samples of point {point.key} in {point.folder} do not reproduce its value {point.value:.6g}; "
                "delete its rows and run again."
            )
        sizes = _sizes(self._weights[n][:, np.argsort(order)], table, point.n_bytes)
        return _Drawn(tuple(table.ids[i] for i in order), sizes, values)

    def _statistics(self, table: SampleTable, task: str) -> tuple[np.ndarray | None, MetricValues | None]:
        """Statistics of the samples, and the metrics that they give."""
        if task == distortion.TASK:
            return table.feature_error, distortion.values
        return table.stats, self._metric_values_of(task)


def _sizes(weights: np.ndarray, table: SampleTable, n_bytes: int) -> np.ndarray:
    """Size of each resample [R], relative to the file's: records of the samples drawn, with the same header and
    framing. Pixels and scalars stay those of the whole set: they cancel between two curves of one resample."""
    records = np.array([0 if b is None else b for b in table.n_bytes], dtype=np.float64)
    overhead = n_bytes - records.sum()
    return np.asarray((weights @ records + overhead) / n_bytes)


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Log-likelihoods of the targets behind one operating point, [seeds, N] nats in order of the sample ids."""

    ids: tuple[str, ...]
    log_likelihoods: np.ndarray
    null: np.ndarray | None  # of the null model; None if a point has none


def likelihoods(by_seed: Sequence[Point]) -> Likelihoods | None:
    """Likelihoods of one operating point with all its seeds; None if one has none, no samples or other samples. Raises
    `FcbenchError`: a damaged file."""
    if not all(has_samples(Path(point.folder), point.key) for point in by_seed):
        return None
    ids, log_likelihoods, null = set[tuple[str, ...]](), list[np.ndarray](), list[np.ndarray]()
    for point in by_seed:
        table = load_samples(point.folder, point.key)
        if table.log_likelihood is None:
            return None
        order = np.argsort(np.array(table.ids, dtype=str), kind="stable")
        ids.add(tuple(table.ids[i] for i in order))
        log_likelihoods.append(table.log_likelihood[order])
        if table.null_log_likelihood is not None:
            null.append(table.null_log_likelihood[order])
    if len(ids) != 1:
        return None
    nulls = np.stack(null) if len(null) == len(log_likelihoods) else None
    return Likelihoods(ids.pop(), np.stack(log_likelihoods), nulls)
