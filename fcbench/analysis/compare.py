"""Codecs against an anchor: BD-rate, BD-accuracy, rate at the ceiling less a loss, each with its interval.

Within a situation (`fcbench.analysis.situations`) every curve is compared with the anchor's. Intervals are 95 %, from a
bootstrap over the test samples, paired between all curves: accuracy and bytes are those of the samples drawn. With
several seeds, a point is its mean over seeds, and each resample draws seeds too. Numbers that would be meaningless are
withheld, with the reason.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from fcbench.analysis import curves, open_ended, published, resampled_curves, situations, variants
from fcbench.analysis.bootstrap import Bootstrap, Point, points
from fcbench.analysis.curves import Curve, Loss
from fcbench.analysis.estimate import Estimate, estimate
from fcbench.analysis.situations import MetricValuesOf, metric_values_of
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.results.intervals import N_RESAMPLES
from fcbench.results.row import OK

ALL = "all"  # In place of metric names: every metric


@dataclass(frozen=True, slots=True)
class Comparison:
    """One codec against the anchor in one situation.

    `quality_overlap, rate_overlap`: the range that both curves share, as a fraction of their joint range; used by
    BD-rate and BD-accuracy respectively. `left_percent, anchor_left_percent`: bits that more training would save
    (`open_ended.left_percent`).
    """

    dataset: str
    encoder: str
    task: str
    metric: str
    higher_is_better: bool
    anchor: str
    codec: str
    kind: str
    source: str  # of a published curve, which has no intervals; empty for measured ones
    n_points: int  # operating points measured with every seed
    n_failed: int  # operating points that failed with some seed, and `failure` the reason of the first
    failure: str
    bd_rate_percent: Estimate
    bd_accuracy: Estimate
    quality_overlap: float | None
    rate_overlap: float | None
    target: float | None  # the uncoded ceiling less a loss, and the rate that reaches it, in `rate_unit`
    rate_at_target: Estimate
    rate_unit: str
    left_percent: float | None
    anchor_left_percent: float | None
    doubt: str  # warning that further training might undo the BD-rate; empty if not


@dataclass(frozen=True, slots=True)
class _Series:
    """Operating points of a curve, as measured with each of its seeds."""

    label: str
    kind: str
    curve: Curve | None  # means over seeds; None without a point
    points: list[list[Point]]  # by operating point (in the order of the rows), then seed
    seeds: tuple[int, ...]  # in order
    n_failed: int
    failure: str
    left_percent: float | None  # `open_ended.left_percent` of its measured points


def compare(
    rows: pd.DataFrame,
    anchor: str | None,
    metrics: Sequence[str] = (),
    x: str = "bpp",
    metric_values_of: MetricValuesOf = metric_values_of,
    n_resamples: int = N_RESAMPLES,
    loss: Loss = Loss(),
) -> tuple[list[Comparison], list[str]]:
    """Compare every curve of every situation with the anchor's, including the anchor itself.

    `rows`: of `fcbench.analysis.situations.load`. `anchor`: a codec, as `situations.codec_labels` names it, or `remote`
    or `label`: all rows of that kind together. None if runs are kept apart: each codec is compared with itself in the
    first run. `metrics`: names, or `ALL`; empty for each task's primary one. `x`: column of the rate.
    `metric_values_of`: metric values of a task's statistics; a task without them gets no intervals. `loss`: how far
    below the uncoded ceiling the rate is read. Returns the
    comparisons, and notes on what could not be had, one line each. Raises `FcbenchError`: no rows, an anchor or metric
    that is in no row, an anchor that means several curves.
    """
    comparisons, notes = against_each(rows, [anchor], metrics, x, metric_values_of, n_resamples, loss)
    return comparisons[anchor], notes


def against_each(
    rows: pd.DataFrame,
    anchors: Sequence[str | None],
    metrics: Sequence[str] = (),
    x: str = "bpp",
    metric_values_of: MetricValuesOf = metric_values_of,
    n_resamples: int = N_RESAMPLES,
    loss: Loss = Loss(),
) -> tuple[dict[str | None, list[Comparison]], list[str]]:
    """Run `compare` for each of several anchors, by anchor; curves are read and resampled once."""
    if rows.empty:
        raise FcbenchError("no rows to compare; run `fcbench run` first.")
    rows, notes = published.in_unit(rows, x)
    if None in anchors and variants.VARIANT not in rows:
        raise FcbenchError("no anchor: give --anchor NAME, or compare runs with --by.")
    if None in anchors:
        rows = rows[(rows[variants.VARIANT] != "") | ~rows["kind"].isin(situations.SENT)]
    firsts = variants.firsts(rows, situations.plain_codec_labels(rows)) if None in anchors else {}
    rows = rows.assign(
        label=situations.codec_labels(rows),
        encoder_label=situations.encoder_labels(rows),
        data_label=situations.data_labels(rows),
    )
    for anchor in anchors:
        _check_anchor(rows, anchor)
    bootstrap = Bootstrap(metric_values_of, n_resamples)
    by_anchor: dict[str | None, list[Comparison]] = {anchor: [] for anchor in anchors}
    for one, metric in _situations(rows, metrics):
        for anchor, comparison in _compare_one(one, metric, anchors, firsts, x, bootstrap, loss):
            by_anchor[anchor].append(comparison)
    return by_anchor, [*notes, *bootstrap.notes()]


def _check_anchor(rows: pd.DataFrame, anchor: str | None) -> None:
    lines = rows[rows["kind"].isin(situations.SENT)]
    if lines.empty:
        raise FcbenchError("no coded points to compare, only ceilings or floors; run a codec first.")
    kinds = sorted(set(lines["kind"]) - {Kind.CODED})
    known = sorted(set(lines["label"])) + kinds
    if anchor is None or anchor in known:
        return
    longer = sorted(set(lines.loc[lines["codec"] == anchor, "label"]))
    if longer:
        raise FcbenchError(
            f"anchor {anchor!r} stands for {len(longer)} curves; give one of: {'; '.join(map(repr, longer))}."
        )
    raise FcbenchError(unknown("anchor", anchor, known))


def _situations(rows: pd.DataFrame, metrics: Sequence[str]) -> Iterator[tuple[pd.DataFrame, str]]:
    """Rows of each situation with its metrics; failed rows have no metric and belong to every one."""
    known = sorted(set(rows["metric"]) - {""})
    for name in set(metrics) - {ALL}:
        if name not in known:
            raise FcbenchError(unknown("metric", name, [*known, ALL]))
    for _, one in rows.groupby(list(situations.SITUATION), sort=False, dropna=False):
        ok = one[one["status"] == OK]
        primary = list(dict.fromkeys(ok.loc[ok["primary"], "metric"]))
        all_metrics = list(dict.fromkeys(ok["metric"]))
        requested = all_metrics if ALL in metrics else [m for m in metrics if m in all_metrics]
        # a situation where everything failed has no metric: its failures are shown under an empty one
        for metric in requested if metrics else (primary or [""]):
            yield one[(one["metric"] == metric) | (one["status"] != OK)], metric


def _compare_one(
    rows: pd.DataFrame,
    metric: str,
    anchors: Sequence[str | None],
    firsts: Mapping[str, str],
    x: str,
    bootstrap: Bootstrap,
    loss: Loss,
) -> Iterator[tuple[str | None, Comparison]]:
    """Compare every curve of one situation and metric with each anchor. `firsts`: a curve's label -> that of the first
    run's curve, which replaces an anchor of None."""
    ok = rows["status"] == OK
    higher = bool(rows.loc[ok, "higher_is_better"].iloc[0]) if ok.any() else True
    lines = rows[rows["kind"].isin(situations.SENT)]
    references: dict[str, _Series] = {}
    ends = rows[(rows["kind"] == Kind.CEILING) & situations.measured(rows, x)]
    first = rows.iloc[0]
    for (kind, label), one in lines.groupby(["kind", "label"], sort=False):
        test = _series(one, str(label), x, higher)
        readouts = variants.readouts(ends, one)
        target, reached = _at_ceiling(test, readouts, x, metric, first["task"], bootstrap, loss)
        for typed in anchors:
            anchor = firsts[str(label)] if typed is None else typed
            if anchor not in references:
                joined = lines["kind"] if anchor in set(lines["kind"]) else lines["label"]
                references[anchor] = _series(lines[joined == anchor], anchor, x, higher)
            deltas = _deltas(references[anchor], test, metric, first["task"], bootstrap)
            left = references[anchor].left_percent, test.left_percent
            yield typed, Comparison(
                dataset=first["data_label"],
                encoder=first["encoder_label"],
                task=first["task"],
                metric=metric,
                higher_is_better=higher,
                anchor=anchor,
                codec=str(label),
                kind=str(kind),
                source=published.source_of(one),
                n_points=len(test.points),
                n_failed=test.n_failed,
                failure=test.failure,
                **deltas,
                target=target,
                rate_at_target=reached,
                rate_unit=x,
                left_percent=left[1],
                anchor_left_percent=left[0],
                doubt=open_ended.doubt(deltas["bd_rate_percent"].value, anchor, str(label), left),
            )


def _series(rows: pd.DataFrame, label: str, x: str, higher: bool) -> _Series:
    """One curve: operating points measured with every seed; the others count as failed."""
    good = situations.measured(rows, x)
    seeds = tuple(sorted(set(rows["seed"])))
    rates, values, every, failed = [], [], [], 0
    failure = "" if good.all() else situations.problem(rows[~good].iloc[0], x)
    for _, point in rows.groupby(["label", "codec", "objective", "params"], sort=False):
        by_seed = point[good[point.index]].sort_values("seed")
        if tuple(by_seed["seed"]) != seeds:
            failed += 1
            missing = sorted(set(seeds) - set(by_seed["seed"]))
            failure = failure or f"not measured with seed {missing[0]}"
            continue
        rates.append(float(by_seed[x].mean()))
        values.append(float(by_seed["value"].mean()))
        every.append(points(by_seed, x))
    made = curves.curve(rates, values, higher) if rates else None
    kind = str(rows["kind"].iloc[0]) if len(rows) else ""
    return _Series(label, kind, made, every, seeds, failed, failure, open_ended.left_percent(rows[good]))


# ---------------------------------------------------------------------------------------- estimates
def _deltas(anchor: _Series, test: _Series, metric: str, task: str, bootstrap: Bootstrap) -> dict[str, Any]:
    reason = _refusal(anchor, test)
    if reason or anchor.curve is None or test.curve is None:
        nothing = Estimate(reason=reason)
        return {"bd_rate_percent": nothing, "bd_accuracy": nothing, "quality_overlap": None, "rate_overlap": None}
    drawn = bootstrap.curves([(s.points, s.curve.higher_is_better) for s in (anchor, test) if s.curve], task, metric)

    def with_interval(measured: Estimate, resampled: Callable[..., np.ndarray]) -> Estimate:
        if measured.value is None or not drawn:
            return measured
        return estimate(measured.value, resampled(*drawn), "the curves overlap or rise too little")

    pair = anchor.curve, test.curve
    return {
        "bd_rate_percent": with_interval(curves.bd_rate(*pair), resampled_curves.bd_rates),
        "bd_accuracy": with_interval(curves.bd_accuracy(*pair), resampled_curves.bd_accuracies),
        "quality_overlap": curves.quality_overlap(*pair),
        "rate_overlap": curves.rate_overlap(*pair),
    }


def _refusal(anchor: _Series, test: _Series) -> str:
    """Why two series cannot have a delta, whatever their values; empty if they can."""
    for side, s in (("anchor", anchor), ("test", test)):
        if not s.points and s.n_failed:
            return f"all {s.n_failed} points of {s.label} failed: {s.failure}"
        if not s.points:
            return f"anchor {s.label} has no rows here"
        if s.kind == Kind.LABEL:
            return f"{side} is label coding: a bound, no curve"
    if anchor.seeds != test.seeds and Kind.PUBLISHED not in (anchor.kind, test.kind):
        of = [", ".join(map(str, s.seeds)) for s in (anchor, test)]
        return f"anchor has seeds {of[0]}, test has seeds {of[1]}"
    return ""


def _at_ceiling(
    s: _Series, ends: pd.DataFrame, x: str, metric: str, task: str, bootstrap: Bootstrap, loss: Loss
) -> tuple[float | None, Estimate]:
    ends = ends[ends["seed"].isin(s.seeds)].sort_values("seed")
    if tuple(ends["seed"]) != s.seeds:
        return None, Estimate(reason="there is no uncoded ceiling")
    ceiling, higher = float(ends["value"].mean()), bool(ends["higher_is_better"].iloc[0])
    if loss.unit == "pt" and (unit := ends["unit"].iloc[0]):
        return None, Estimate(reason=f"points are of fractions, {metric} is in {unit}: give the loss in percent")
    target = curves.ceiling_target(ceiling, higher, loss)
    if s.curve is None:
        return target, Estimate(reason=f"all {s.n_failed} points failed: {s.failure}")
    if s.kind == Kind.LABEL:
        reaches = s.curve.quality >= (target if higher else -target)
        if not reaches.any():
            best = s.curve.values[np.argmax(s.curve.quality)]
            return target, Estimate(reason=f"never reached: the best is {best:.4g}")
        return target, Estimate(float(s.curve.rates[reaches].min()))
    rate = curves.rate_at(s.curve, target)
    if rate.value is None:
        return target, rate
    drawn = bootstrap.curves([(s.points, higher), ([points(ends, x)], higher)], task, metric)
    if not drawn:
        return target, rate
    targets = [curves.ceiling_target(v, higher, loss) for v in drawn[1].values[0]]
    return target, estimate(rate.value, resampled_curves.rates_at(drawn[0], np.array(targets)))


# ------------------------------------------------------------------------------------------- frame
def flat(record: Any) -> dict[str, Any]:
    """A data class as flat names and plain values; an estimate becomes NAME, NAME_low, NAME_high, NAME_reason."""
    out: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Estimate):
            out[field.name] = value.value
            out |= {f"{field.name}_{k}": v for k, v in asdict(value).items() if k != "value"}
        else:
            out[field.name] = value
    return out


def frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Comparisons, one per row; a missing number is NaN with its reason beside it."""
    return pd.DataFrame([flat(c) for c in comparisons])
