"""The matrices of a cross-neck run, from its rows: values, ratios to the direct neck, usable bits, all with intervals.

A ratio is the share of the direct neck's accuracy that is left: value over direct value, or its inverse if lower is
better, so that 1 means nothing is lost. Intervals are 95 %, paired with the direct neck's points.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from fcbench.analysis import compare, information
from fcbench.analysis.bootstrap import Bootstrap, likelihoods, points
from fcbench.analysis.estimate import Estimate, estimate
from fcbench.analysis.situations import MetricValuesOf, metric_values_of
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.results.chain import Chain, parse
from fcbench.results.intervals import N_RESAMPLES
from fcbench.results.row import OK

DIRECT, SELF, CROSS, LONGER, DEEP = "direct", "self", "cross", "chain", "deep"
"""Kinds of chains (column ``role``): the reference; A > A; A > B; three necks; one neck as deep as all together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A chain on uncoded features."""

    dataset: str
    encoder: str
    kind: str
    chain: Chain
    metric: str
    higher_is_better: bool
    value: Estimate
    ratio: Estimate
    information: Estimate  # usable information [bits per sample]; lost: what of the direct neck's is missing
    lost: Estimate


@dataclass(frozen=True, slots=True)
class BottleneckPosition:
    """A pair under a codec: the bottleneck between the necks, compared with before the first, at equal bits."""

    dataset: str
    encoder: str
    chain: Chain
    metric: str
    higher_is_better: bool
    codec: str
    extra_rate_percent: Estimate
    accuracy_at_equal_rate: Estimate


@dataclass(frozen=True, slots=True)
class Matrices:
    """Results of a cross-neck folder, and notes, one line each."""

    entries: tuple[Entry, ...]
    positions: tuple[BottleneckPosition, ...]
    notes: tuple[str, ...]


def matrices(
    rows: pd.DataFrame, metric_values_of: MetricValuesOf = metric_values_of, n_resamples: int = N_RESAMPLES
) -> Matrices:
    """Entries and bottleneck positions of the rows of `fcbench.analysis.situations.load`. Raises `FcbenchError`: no
    measured chain."""
    rows = rows[rows["primary"] & (rows["status"] == OK)]
    if rows.empty:
        raise FcbenchError("no measured chains; run `fcbench cross-neck` first.")
    chains = [parse(*row) for row in zip(rows["neck"], rows["task"], rows["split"])]
    rows = rows.assign(chain=pd.Series(chains, index=rows.index, dtype=object))
    bootstrap, notes = Bootstrap(metric_values_of, n_resamples), dict[str, None]()
    entries, positions = [], []
    for _, one in rows.groupby(["dataset", "encoder", "task", "metric"], sort=False):
        entries += list(_entries(one[one["kind"] == Kind.CEILING], bootstrap))
        positions += list(_positions(one[one["kind"] == Kind.CODED], metric_values_of, n_resamples, notes))
    return Matrices(tuple(entries), tuple(positions), (*bootstrap.notes(), *notes))


def kind_of_chain(chain: Chain, shallow: str) -> str:
    """Kind of a chain. `shallow`: the neck at each position of a chain."""
    if not chain.before:
        return DIRECT if chain.neck == shallow else DEEP
    if len(chain.before) > 1:
        return LONGER
    return SELF if chain.before == (chain.task,) else CROSS


def _entries(rows: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[Entry]:
    if rows.empty:
        return
    shallow = next((c.neck for c in rows["chain"] if c.before), rows["neck"].iloc[0])
    direct = rows[rows["neck"] == shallow]
    for _, one in rows.groupby("neck", sort=False):
        first = one.iloc[0]
        value, ratio = share_left(direct, one, bootstrap)
        bits, lost = _bits(direct, one)
        chain, higher = first["chain"], bool(first["higher_is_better"])
        about = first["dataset"], first["encoder"], kind_of_chain(chain, shallow), chain, first["metric"], higher
        yield Entry(*about, value, ratio, bits, lost)


def share_left(
    direct: pd.DataFrame, rows: pd.DataFrame, bootstrap: Bootstrap, of: str = "the direct neck"
) -> tuple[Estimate, Estimate]:
    """Value of a point's rows, one per seed, and its ratio to the rows of a reference, here called `of`."""
    first, value = rows.iloc[0], float(rows["value"].mean())
    if set(direct["seed"]) != set(rows["seed"]):
        return Estimate(value), Estimate(reason=f"{of} has other seeds")
    lines = [([points(r)], True) for r in (direct, rows)]
    drawn = bootstrap.curves(lines, first["task"], first["metric"])
    higher, base = bool(first["higher_is_better"]), float(direct["value"].mean())
    left = float(_left(np.array([base]), np.array([value]), higher)[0])
    reference, values = (d.values[0] for d in drawn) if drawn else (None, None)
    if np.isnan(left):
        return estimate(value, values), Estimate(reason=f"{of} has no accuracy to lose")
    ratios = None if reference is None or values is None else _left(reference, values, higher)
    return estimate(value, values), estimate(left, ratios)


def _left(direct: np.ndarray, value: np.ndarray, higher: bool) -> np.ndarray:
    """Share of the direct neck's accuracy that is left; NaN if it has none to lose."""
    top, bottom = (value, direct) if higher else (direct, value)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _bits(direct: pd.DataFrame, rows: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Usable information of a chain, and its loss against the direct neck [bits per sample]."""
    base, chain = likelihoods(points(direct)), likelihoods(points(rows))
    if base is None or chain is None or base.ids != chain.ids or base.null is None:
        return (Estimate(reason="no log-likelihoods are stored with these points"),) * 2
    if base.log_likelihoods.shape != chain.log_likelihoods.shape:
        return (Estimate(reason="the direct neck has other seeds"),) * 2
    return information.bits_between(chain.log_likelihoods, base.null), information.bits_between(
        base.log_likelihoods, chain.log_likelihoods
    )


def _positions(
    rows: pd.DataFrame, metric_values_of: MetricValuesOf, n_resamples: int, notes: dict[str, None]
) -> Iterator[BottleneckPosition]:
    if rows.empty:
        return
    rows = rows[[len(c.before) == 1 for c in rows["chain"]]]
    for (_, codec), one in rows.groupby(["neck", "codec"], sort=False):
        after = one["chain"].map(lambda c: c.coded_after)
        if set(after) != {0, 1}:
            continue
        position = after.map({0: "before", 1: "between"})
        both = one.drop(columns="chain").assign(codec=position, split="", objective="")
        metric = one["metric"].iloc[0]
        comparisons, lines = compare.compare(both, "before", [metric], "bpp", metric_values_of, n_resamples)
        notes |= dict.fromkeys(lines)
        test = next(c for c in comparisons if c.codec == "between")
        first = one.iloc[0]
        about = first["dataset"], first["encoder"], first["chain"], metric, bool(first["higher_is_better"])
        yield BottleneckPosition(*about, str(codec), test.bd_rate_percent, test.bd_accuracy)


COLUMNS = "dataset encoder role chain task metric higher_is_better neck codec figure value low high reason".split()


def frame(matrices: Matrices) -> pd.DataFrame:
    """One number per row: its chain, name, value and interval, or the reason why it is missing."""
    records = []
    for e in matrices.entries:
        numbers = {"value": e.value, "ratio": e.ratio, "usable_bits": e.information, "usable_bits_lost": e.lost}
        records += [_about(e) | {"role": e.kind, "figure": name} | asdict(n) for name, n in numbers.items()]
    for p in matrices.positions:
        about = _about(p) | {"codec": p.codec, "role": "between less before"}
        records.append(about | {"figure": "extra_rate_at_equal_accuracy_percent"} | asdict(p.extra_rate_percent))
        records.append(about | {"figure": "accuracy_at_equal_rate"} | asdict(p.accuracy_at_equal_rate))
    return pd.DataFrame(records, columns=COLUMNS).fillna({"codec": ""})


def _about(entry: Entry | BottleneckPosition) -> dict[str, Any]:
    about = {k: getattr(entry, k) for k in ("dataset", "encoder", "metric", "higher_is_better")}
    return about | {"chain": entry.chain.name, "task": entry.chain.task, "neck": entry.chain.neck}
