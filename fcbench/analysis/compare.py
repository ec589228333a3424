"""Codecs against an anchor: BD-rate, BD-accuracy, rate at the ceiling less 1 %, each with its interval.

Within a situation (task, data, encoder, neck, head; see `fcbench.analysis.situations`) every curve is set against the anchor's.
Intervals are of 95 %, from a bootstrap over the test samples, paired between all curves: each resample draws the same
samples for all, and both the accuracy and the bytes are those of the samples drawn. With several seeds, a point is its
mean over seeds and each resample draws seeds too. A figure that would mean nothing is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fcbench.analysis import curves, resampled_curves, situations
from fcbench.analysis.bootstrap import Bootstrap, Point, ValuesOf
from fcbench.analysis.curves import Curve
from fcbench.analysis.estimate import Estimate
from fcbench.core.errors import FcbenchError
from fcbench.core.registry import unknown
from fcbench.results import intervals

LOSS_PERCENT = 1.0
"""How far below the uncoded ceiling the rate is read."""

N_RESAMPLES = 1000
ALL = "all"
"""Instead of metrics: every one."""


@dataclass(frozen=True, slots=True)
class Number:
    """A figure with its 95 % interval, or the reason why there is none. Low and high are None without samples."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One codec against the anchor in one situation.

    Attributes:
        n_points: operating points measured with every seed.
        n_failed: operating points that failed with some seed, and `failure` the reason of the first.
        quality_overlap, rate_overlap: what both curves cover, as a fraction of what either does; under BD-rate and
            BD-accuracy respectively.
        target: the uncoded ceiling less `LOSS_PERCENT`; rate_at_target: where the curve reaches it, in `rate_unit`.
    """

    dataset: str
    encoder: str
    task: str
    metric: str
    higher_is_better: bool
    anchor: str
    codec: str
    kind: str
    n_points: int
    n_failed: int
    failure: str
    bd_rate_percent: Number
    bd_accuracy: Number
    quality_overlap: float | None
    rate_overlap: float | None
    target: float | None
    rate_at_target: Number
    rate_unit: str


@dataclass(frozen=True, slots=True)
class _Series:
    """A curve's operating points, as measured with each of its seeds.

    Attributes:
        curve: means over seeds; None without a point.
        points: by operating point (in the order of the rows), then seed.
        seeds: in order.
    """

    label: str
    kind: str
    curve: Curve | None
    points: list[list[Point]]
    seeds: tuple[int, ...]
    n_failed: int
    failure: str


def compare(
    rows: pd.DataFrame,
    anchor: str,
    metrics: Sequence[str] = (),
    x: str = "bpp",
    values_of: ValuesOf = lambda task: None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[list[Comparison], list[str]]:
    """Every curve of every situation against the anchor's, the anchor's own included.

    Args:
        rows: of `fcbench.analysis.situations.load`.
        anchor: a codec, as `series.codec_labels` calls it, or `remote` or `label`: all rows of that kind together.
        metrics: names, or `ALL`; none for each task's primary one.
        x: column of the rate.
        values_of: metrics of a task's summed statistics; intervals are empty for a task that has none.

    Returns:
        The comparisons, and notes on what could not be had, one line each.

    Raises:
        FcbenchError: no rows, an anchor or metric that is in no row, an anchor that means several curves.
    """
    if rows.empty:
        raise FcbenchError("no rows to compare; run `fcbench run` first.")
    rows = rows.assign(
        label=situations.codec_labels(rows),
        encoder_label=situations.encoder_labels(rows),
        data_label=situations.data_labels(rows),
    )
    _check_anchor(rows, anchor)
    bootstrap = Bootstrap(values_of, n_resamples)
    found = [
        comparison
        for one, metric in _situations(rows, metrics)
        for comparison in _compare_one(one, metric, anchor, x, bootstrap)
    ]
    return found, bootstrap.notes()


def _check_anchor(rows: pd.DataFrame, anchor: str) -> None:
    lines = rows[rows["kind"].isin([*situations.CURVES, situations.LABEL])]
    if lines.empty:
        raise FcbenchError("no coded points to compare, only ceilings or floors; run a codec first.")
    kinds = sorted(set(lines["kind"]) - {"coded"})
    known = sorted(set(lines["label"])) + kinds
    if anchor in known:
        return
    longer = sorted(set(lines.loc[lines["codec"] == anchor, "label"]))
    if longer:
        raise FcbenchError(
            f"anchor {anchor!r} means {len(longer)} curves; give one of: " f"{'; '.join(map(repr, longer))}."
        )
    raise FcbenchError(unknown("anchor", anchor, known))


def _situations(rows: pd.DataFrame, metrics: Sequence[str]) -> Iterator[tuple[pd.DataFrame, str]]:
    """Rows of each situation with its metrics; failed rows, which have none, belong to every metric."""
    known = sorted(set(rows["metric"]) - {""})
    for name in set(metrics) - {ALL}:
        if name not in known:
            raise FcbenchError(unknown("metric", name, [*known, ALL]))
    for _, one in rows.groupby(list(situations.SITUATION), sort=False, dropna=False):
        ok = one[one["status"] == "ok"]
        primary = list(dict.fromkeys(ok.loc[ok["primary"], "metric"]))
        own = list(dict.fromkeys(ok["metric"]))
        asked = own if ALL in metrics else [m for m in metrics if m in own]
        # a situation in which everything failed has no metric: shown, with its failures, under none
        for metric in asked if metrics else (primary or [""]):
            yield one[(one["metric"] == metric) | (one["status"] != "ok")], metric


def _compare_one(rows: pd.DataFrame, metric: str, anchor: str, x: str, bootstrap: Bootstrap) -> Iterator[Comparison]:
    """Every curve of one situation and metric."""
    ok = rows["status"] == "ok"
    higher = bool(rows.loc[ok, "higher_is_better"].iloc[0]) if ok.any() else True
    lines = rows[rows["kind"].isin([*situations.CURVES, situations.LABEL])]
    joined = lines["kind"] if anchor in set(lines["kind"]) else lines["label"]
    reference = _series(lines[joined == anchor], anchor, x, higher)
    ends = rows[(rows["kind"] == situations.CEILING) & situations.measured(rows, x)]
    first = rows.iloc[0]
    for (kind, label), one in lines.groupby(["kind", "label"], sort=False):
        test = _series(one, str(label), x, higher)
        rate, accuracy = _deltas(reference, test, metric, first["task"], bootstrap)
        target, reached = _at_ceiling(test, ends, x, metric, first["task"], bootstrap)
        yield Comparison(
            dataset=first["data_label"],
            encoder=first["encoder_label"],
            task=first["task"],
            metric=metric,
            higher_is_better=higher,
            anchor=anchor,
            codec=str(label),
            kind=str(kind),
            n_points=len(test.points),
            n_failed=test.n_failed,
            failure=test.failure,
            bd_rate_percent=rate[0],
            bd_accuracy=accuracy[0],
            quality_overlap=rate[1],
            rate_overlap=accuracy[1],
            target=target,
            rate_at_target=reached,
            rate_unit=x,
        )


def _series(rows: pd.DataFrame, label: str, x: str, higher: bool) -> _Series:
    """One curve: operating points that were measured with every seed; the others are counted as failed."""
    good = situations.measured(rows, x)
    seeds = tuple(sorted(set(rows["seed"])))
    rates, values, points, failed = [], [], [], 0
    failure = "" if good.all() else situations.problem(rows[~good].iloc[0], x)
    for _, point in rows.groupby(["codec", "objective", "params"], sort=False):
        by_seed = point[good[point.index]].sort_values("seed")
        if tuple(by_seed["seed"]) != seeds:
            failed += 1
            missing = sorted(set(seeds) - set(by_seed["seed"]))
            failure = failure or f"not measured with seed {missing[0]}"
            continue
        rates.append(float(by_seed[x].mean()))
        values.append(float(by_seed["value"].mean()))
        points.append(_points(by_seed, x))
    made = curves.curve(rates, values, higher) if rates else None
    kind = str(rows["kind"].iloc[0]) if len(rows) else ""
    return _Series(label, kind, made, points, seeds, failed, failure)


def _points(rows: pd.DataFrame, x: str) -> list[Point]:
    columns = rows[[situations.FOLDER, "point", x, "value", "n_bytes"]]
    return [Point(*row) for row in columns.itertuples(index=False, name=None)]


# ---------------------------------------------------------------------------------------- estimates
def _deltas(
    anchor: _Series, test: _Series, metric: str, task: str, bootstrap: Bootstrap
) -> tuple[tuple[Number, float | None], tuple[Number, float | None]]:
    """BD-rate and BD-accuracy, each with its overlap."""
    reason = _refusal(anchor, test)
    if reason or anchor.curve is None or test.curve is None:
        nothing = Number(reason=reason)
        return (nothing, None), (nothing, None)
    drawn = bootstrap.curves([(s.points, s.curve.higher_is_better) for s in (anchor, test) if s.curve], task, metric)

    def number(estimate: Estimate, of: Callable[..., np.ndarray]) -> Number:
        if estimate.value is None:
            return Number(reason=estimate.reason)
        return Number(estimate.value, *_interval(of(*drawn) if drawn else None))

    rate = curves.bd_rate(anchor.curve, test.curve)
    accuracy = curves.bd_accuracy(anchor.curve, test.curve)
    return (
        (number(rate, resampled_curves.bd_rates), rate.overlap),
        (number(accuracy, resampled_curves.bd_accuracies), accuracy.overlap),
    )


def _refusal(anchor: _Series, test: _Series) -> str:
    """Why two series give no delta whatever their values are, or ""."""
    for role, s in (("anchor", anchor), ("test", test)):
        if not s.points and s.n_failed:
            return f"all {s.n_failed} points of {s.label} failed: {s.failure}"
        if not s.points:
            return f"anchor {s.label} has no rows here"
        if s.kind == situations.LABEL:
            return f"{role} is label coding: a bound, no curve"
    if anchor.seeds != test.seeds:
        of = [", ".join(map(str, s.seeds)) for s in (anchor, test)]
        return f"anchor has seeds {of[0]}, test has seeds {of[1]}"
    return ""


def _at_ceiling(
    s: _Series, ends: pd.DataFrame, x: str, metric: str, task: str, bootstrap: Bootstrap
) -> tuple[float | None, Number]:
    """The ceiling less `LOSS_PERCENT`, and the rate at which a series reaches it."""
    ends = ends[ends["seed"].isin(s.seeds)].sort_values("seed")
    if tuple(ends["seed"]) != s.seeds:
        return None, Number(reason="no uncoded ceiling was measured")
    ceiling, higher = float(ends["value"].mean()), bool(ends["higher_is_better"].iloc[0])
    target = curves.ceiling_target(ceiling, higher, LOSS_PERCENT)
    if s.curve is None:
        return target, Number(reason=f"all {s.n_failed} points failed: {s.failure}")
    if s.kind == situations.LABEL:
        reaches = s.curve.quality >= (target if higher else -target)
        if not reaches.any():
            best = s.curve.values[np.argmax(s.curve.quality)]
            return target, Number(reason=f"never reached: the best is {best:.4g}")
        return target, Number(float(s.curve.rates[reaches].min()))
    found = curves.rate_at(s.curve, target)
    if found.value is None:
        return target, Number(reason=found.reason)
    drawn = bootstrap.curves([(s.points, higher), ([_points(ends, x)], higher)], task, metric)
    if not drawn:
        return target, Number(found.value)
    targets = [curves.ceiling_target(v, higher, LOSS_PERCENT) for v in drawn[1].values[0]]
    rates = resampled_curves.rates_at(drawn[0], np.array(targets))
    return target, Number(found.value, *_interval(rates))


def _interval(values: np.ndarray | None) -> tuple[float | None, float | None]:
    if values is None:
        return None, None
    low, high = intervals.interval(values)
    return (None, None) if np.isnan(low) else (low + 0.0, high + 0.0)  # no -0.0
