"""The matrices of a cross-neck run, from its rows: values, ratios to the direct neck, usable bits, all with intervals.

A ratio is how much of the direct neck's accuracy is left: value over direct value, or its inverse where lower is
better, so that 1 is nothing lost. Intervals are of 95 %, paired with the direct neck's points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fcbench.analysis import compare, information, likelihoods, situations
from fcbench.analysis.bootstrap import Bootstrap, Point, ValuesOf
from fcbench.analysis.compare import Number
from fcbench.core.errors import FcbenchError
from fcbench.results import intervals
from fcbench.results.chain import Chain, parse

DIRECT, SELF, CROSS, LONGER, DEEP = "direct", "self", "cross", "chain", "deep"
"""What a chain is for: the reference; A > A; A > B; three necks; one neck as deep as all together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A chain on uncoded features.

    Attributes:
        information: usable information [bits per sample]; lost: what of the direct neck's is missing.
    """

    dataset: str
    encoder: str
    role: str
    chain: Chain
    metric: str
    higher_is_better: bool
    value: Number
    ratio: Number
    information: Number
    lost: Number


@dataclass(frozen=True, slots=True)
class Placed:
    """A pair under a codec: coded between the necks, compared with coded before the first, at equal bits."""

    dataset: str
    encoder: str
    chain: Chain
    metric: str
    higher_is_better: bool
    codec: str
    extra_rate_percent: Number
    accuracy_at_equal_rate: Number


@dataclass(frozen=True, slots=True)
class Matrices:
    """All that a cross-neck folder says, and notes, a line each."""

    entries: tuple[Entry, ...]
    placed: tuple[Placed, ...]
    notes: tuple[str, ...]


def matrices(
    rows: pd.DataFrame, values_of: ValuesOf = lambda task: None, n_resamples: int = compare.N_RESAMPLES
) -> Matrices:
    """Entries and placements of the rows of `fcbench.analysis.situations.load`.

    Raises:
        FcbenchError: no measured chain.
    """
    rows = rows[rows["primary"] & (rows["status"] == "ok")]
    if rows.empty:
        raise FcbenchError("no measured chains; run `fcbench cross-neck` first.")
    chains = [parse(*row) for row in zip(rows["neck"], rows["task"], rows["split"])]
    rows = rows.assign(chain=pd.Series(chains, index=rows.index, dtype=object))
    bootstrap, notes = Bootstrap(values_of, n_resamples), dict[str, None]()
    entries, placed = [], []
    for _, one in rows.groupby(["dataset", "encoder", "task", "metric"], sort=False):
        entries += list(_entries(one[one["kind"] == situations.CEILING], bootstrap))
        placed += list(_placed(one[one["kind"] == "coded"], values_of, n_resamples, notes))
    return Matrices(tuple(entries), tuple(placed), (*bootstrap.notes(), *notes))


# ------------------------------------------------------------------------------------------- uncoded
def role(chain: Chain, shallow: str) -> str:
    """What a chain is for; `shallow`: the neck of the levels."""
    if not chain.above:
        return DIRECT if chain.neck == shallow else DEEP
    if len(chain.above) > 1:
        return LONGER
    return SELF if chain.above == (chain.task,) else CROSS


def _entries(rows: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[Entry]:
    """Every chain that ends in one task on one encoder."""
    if rows.empty:
        return
    shallow = next((c.neck for c in rows["chain"] if c.above), rows["neck"].iloc[0])
    direct = rows[rows["neck"] == shallow]
    for _, one in rows.groupby("neck", sort=False):
        first = one.iloc[0]
        value, ratio = _ratio(direct, one, bootstrap)
        bits, lost = _bits(direct, one)
        yield Entry(
            first["dataset"],
            first["encoder"],
            role(first["chain"], shallow),
            first["chain"],
            first["metric"],
            bool(first["higher_is_better"]),
            value,
            ratio,
            bits,
            lost,
        )


def _points(rows: pd.DataFrame) -> list[Point]:
    columns = rows.sort_values("seed")[[situations.FOLDER, "point", "bpp", "value", "n_bytes"]]
    return [Point(*row) for row in columns.itertuples(index=False, name=None)]


def _ratio(direct: pd.DataFrame, rows: pd.DataFrame, bootstrap: Bootstrap) -> tuple[Number, Number]:
    """Value of a chain, and its ratio to the direct neck."""
    first, own = rows.iloc[0], float(rows["value"].mean())
    if set(direct["seed"]) != set(rows["seed"]):
        return Number(own), Number(reason="the direct neck has other seeds")
    lines = [([_points(r)], True) for r in (direct, rows)]
    drawn = bootstrap.curves(lines, first["task"], first["metric"])
    higher, base = bool(first["higher_is_better"]), float(direct["value"].mean())
    point = _left(np.array([base]), np.array([own]), higher)[0]
    if not drawn:
        return Number(own), _number(float(point), None)
    reference, values = (d.values[0] for d in drawn)
    return _number(own, values), _number(float(point), _left(reference, values, higher))


def _left(direct: np.ndarray, own: np.ndarray, higher: bool) -> np.ndarray:
    """Share of the direct neck's accuracy that is left, NaN where there is none to lose."""
    top, bottom = (own, direct) if higher else (direct, own)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _number(value: float, resampled: np.ndarray | None) -> Number:
    if np.isnan(value):
        return Number(reason="the direct neck has no accuracy to lose")
    if resampled is None:
        return Number(value)
    low, high = intervals.interval(resampled)
    return Number(value) if np.isnan(low) else Number(value, low, high)


def _bits(direct: pd.DataFrame, rows: pd.DataFrame) -> tuple[Number, Number]:
    """Usable information of a chain, and what it lost of the direct neck's [bits per sample]."""
    found = []
    for one in (direct, rows):
        ordered = one.sort_values("seed")
        points = zip(ordered[situations.FOLDER], ordered["point"])
        found.append(likelihoods.over_seeds(points))
    base, own = found
    if base is None or own is None or base.ids != own.ids or base.null is None:
        nothing = Number(reason="no log-likelihoods were written with these points")
        return nothing, nothing
    if base.given.shape != own.given.shape:
        nothing = Number(reason="the direct neck has other seeds")
        return nothing, nothing
    bits = information.bits_between(own.given, base.null)
    lost = information.bits_between(base.given, own.given)
    return Number(bits.value, bits.low, bits.high), Number(lost.value, lost.low, lost.high)


# --------------------------------------------------------------------------------------------- coded
def _placed(rows: pd.DataFrame, values_of: ValuesOf, n_resamples: int, notes: dict[str, None]) -> Iterator[Placed]:
    """Pairs coded between their necks against the same coded before them: `compare`, the places for codecs."""
    if rows.empty:
        return
    rows = rows[[len(c.above) == 1 for c in rows["chain"]]]
    for (_, codec), one in rows.groupby(["neck", "codec"], sort=False):
        after = one["chain"].map(lambda c: c.coded_after)
        if set(after) != {0, 1}:
            continue
        places = after.map({0: "before", 1: "between"})
        both = one.drop(columns="chain").assign(codec=places, split="", objective="")
        metric = one["metric"].iloc[0]
        found, lines = compare.compare(both, "before", [metric], "bpp", values_of, n_resamples)
        notes |= dict.fromkeys(lines)
        test = next(c for c in found if c.codec == "between")
        first = one.iloc[0]
        yield Placed(
            first["dataset"],
            first["encoder"],
            first["chain"],
            metric,
            bool(first["higher_is_better"]),
            str(codec),
            test.bd_rate_percent,
            test.bd_accuracy,
        )
