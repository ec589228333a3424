"""The matrices of a cross-neck run, from its rows: values, ratios to the direct neck, usable bits, all with intervals.

A ratio is how much of the direct neck's accuracy is left: value over direct value, or its inverse where lower is
better, so that 1 is nothing lost. Intervals are of 95 %, paired with the direct neck's points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fcbench import _blocks, _likelihoods, compare, curves, information, series
from fcbench._blocks import Block
from fcbench._paired import Bootstrap, Point, ValuesOf
from fcbench.chains import Chain, parse
from fcbench.compare import Number
from fcbench.types import FcbenchError

DIRECT, SELF, CROSS, LONGER, DEEP = "direct", "self", "cross", "chain", "deep"
"""What a chain is for: the reference; A > A; A > B; three necks; one neck as deep as all together."""
COLUMNS = (
    "dataset",
    "encoder",
    "role",
    "chain",
    "task",
    "metric",
    "higher_is_better",
    "neck",
    "codec",
    "figure",
    "value",
    "low",
    "high",
    "reason",
)

PLACED_HEADER = ("encoder", "chain", "metric", "codec", "extra bits (%)", "accuracy at equal bits")
MATRICES = (
    ("value", ".4g", "value"),
    ("ratio to the direct neck", ".3f", "ratio"),
    ("usable bits per image", ".1f", "information"),
    ("usable bits per image lost against the direct neck", ".1f", "lost"),
)
"""Title, format and field of `Entry` of each matrix."""


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
    """Entries and placements of the rows of `fcbench.series.load`.

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
        entries += list(_entries(one[one["kind"] == series.CEILING], bootstrap))
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
    columns = rows.sort_values("seed")[[series.FOLDER, "point", "bpp", "value", "n_bytes"]]
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
    low, high = curves.interval(resampled)
    return Number(value) if np.isnan(low) else Number(value, low, high)


def _bits(direct: pd.DataFrame, rows: pd.DataFrame) -> tuple[Number, Number]:
    """Usable information of a chain, and what it lost of the direct neck's [bits per sample]."""
    found = []
    for one in (direct, rows):
        ordered = one.sort_values("seed")
        points = zip(ordered[series.FOLDER], ordered["point"])
        found.append(_likelihoods.over_seeds(points))
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


# ---------------------------------------------------------------------------------------------- text
def flat(found: Matrices) -> list[dict[str, Any]]:
    """One figure a record."""
    out = []
    for e in found.entries:
        about = {**_about(e.dataset, e.encoder, e.chain, e.metric, e.higher_is_better), "role": e.role}
        for name, n in (
            ("value", e.value),
            ("ratio", e.ratio),
            ("usable_bits", e.information),
            ("usable_bits_lost", e.lost),
        ):
            out.append(about | _figure(name, n))
    for p in found.placed:
        about = _about(p.dataset, p.encoder, p.chain, p.metric, p.higher_is_better)
        about |= {"codec": p.codec, "role": "between less before"}
        out.append(about | _figure("extra_rate_at_equal_accuracy_percent", p.extra_rate_percent))
        out.append(about | _figure("accuracy_at_equal_rate", p.accuracy_at_equal_rate))
    return out


def _about(dataset: str, encoder: str, chain: Chain, metric: str, higher: bool) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "encoder": encoder,
        "chain": chain.name,
        "task": chain.task,
        "metric": metric,
        "higher_is_better": higher,
        "neck": chain.neck,
        "codec": "",
    }


def _figure(name: str, n: Number) -> dict[str, Any]:
    return {"figure": name, "value": n.value, "low": n.low, "high": n.high, "reason": n.reason}


def comma_separated(found: Matrices) -> str:
    """CSV, one figure a line."""
    return _blocks.comma_separated(COLUMNS, flat(found))


def shown(n: Number, form: str) -> str:
    """A figure with its interval; ``--`` where there is none."""
    return _blocks.figure(n, lambda v: format(v, form))


def markdown(found: Matrices) -> str:
    """A matrix an encoder (rows: what the features went through; columns: whose head reads), then where to code."""
    blocks = []
    for encoder in dict.fromkeys(e.encoder for e in found.entries):
        own = [e for e in found.entries if e.encoder == encoder]
        for title, form, of in MATRICES:
            blocks.append(_matrix(f"{encoder}: {title}", own, of, form))
    if found.placed:
        blocks.append(_placements(found.placed))
    return _blocks.markdown(blocks, found.notes)


def _matrix(title: str, entries: Sequence[Entry], of: str, form: str) -> Block:
    tasks: dict[str, str] = {}
    for e in entries:
        tasks.setdefault(e.chain.task, e.metric)
    rows = []
    for name in levels(entries):
        own = {e.chain.task: e for e in entries if through(e) == name}
        cells = [shown(getattr(own[t], of), form) if t in own else "" for t in tasks]
        rows.append([name, *cells])
    header = ("through", *(f"{t} ({metric})" for t, metric in tasks.items()))
    return Block(title, header, rows, [])


def _placements(placed: Sequence[Placed]) -> Block:
    rows = [
        [
            p.encoder,
            p.chain.name,
            p.metric,
            p.codec,
            _or_reason(p.extra_rate_percent, "+.1f"),
            _or_reason(p.accuracy_at_equal_rate, "+.4f"),
        ]
        for p in placed
    ]
    title = "Coded between the necks, less coded before the first"
    return Block(title, PLACED_HEADER, rows, [], n_left=len(PLACED_HEADER))


def through(entry: Entry) -> str:
    """What the features went through before the task's own neck: a row of the matrix."""
    if entry.role == DIRECT:
        return "nothing (direct)"
    if entry.role == DEEP:
        return f"nothing ({entry.chain.neck})"
    return " > ".join(entry.chain.above)


def levels(entries: Sequence[Entry]) -> list[str]:
    """Rows of a matrix: direct necks, then one level of adaptation, then two, each in the order of the tasks."""
    above = [task for e in entries for task in e.chain.above]
    tasks = list(dict.fromkeys([*(e.chain.task for e in entries), *above]))

    def rank(e: Entry) -> tuple[int, bool, list[int], str]:
        order = [tasks.index(t) for t in e.chain.above]
        return len(order), e.role == DEEP, order, e.chain.neck

    return list(dict.fromkeys(through(e) for e in sorted(entries, key=rank)))


def _or_reason(n: Number, form: str) -> str:
    return n.reason if n.value is None else shown(n, form)


# ------------------------------------------------------------------------------------------- picture
def save(found: Matrices, path: Path) -> None:
    """Heat maps of the ratio to the direct neck, one an encoder."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fcbench._plot_style import PAGE_IN, STYLE

    encoders = list(dict.fromkeys(e.encoder for e in found.entries))
    names = levels(found.entries)
    tasks = list(dict.fromkeys(e.chain.task for e in found.entries))
    with rc_context({**STYLE, "axes.grid": False}):
        fig = Figure(figsize=(PAGE_IN, 0.8 + 0.26 * len(names)), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(1, len(encoders), squeeze=False)[0]
        for ax, encoder in zip(axes, encoders):
            table = np.full((len(names), len(tasks)), np.nan)
            for e in found.entries:
                if e.encoder == encoder and e.ratio.value is not None:
                    at = names.index(through(e)), tasks.index(e.chain.task)
                    table[at] = e.ratio.value
            image = ax.imshow(table, cmap="RdBu", vmin=0.5, vmax=1.5, aspect="auto")
            ax.set_title(encoder)
            ax.set_xticks(range(len(tasks)), tasks)
            first = ax is axes[0]
            ax.set_yticks(range(len(names)), names if first else [""] * len(names))
            for (y, x), v in np.ndenumerate(table):
                if np.isfinite(v):
                    ink = "#ffffff" if abs(v - 1) > 0.35 else "#000000"
                    ax.text(x, y, f"{v:.2f}", ha="center", va="center", fontsize=6, color=ink)
        fig.colorbar(image, ax=axes, label="share of the direct neck's accuracy")
        fig.savefig(path, dpi=200)
