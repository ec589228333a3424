"""Rate-accuracy figures from a table of rate points. Runs nothing, imports no torch.

One panel a task. Colour and marker tell the codec; line style, filling and shade of grey tell the encoder: so each
stays apart in print without colour. The uncoded ceiling is dashed, the floor of no bits at all is dotted, both in
the encoder's shade. Bands are the rows' 95 % intervals.

References:
    M. Okabe and K. Ito, "Color universal design", 2008 (the palette, without its yellow, which fades on white).
"""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from fcbench.registry import unknown
from fcbench.types import FcbenchError

X_LABELS = {
    "bpp": "Rate (bits per pixel)",
    "bpfp": "Rate (bits per feature point)",
    "bytes_per_sample": "Rate (bytes per image)",
}
"""Column of the rate -> label of its axis."""

METRIC_LABELS = {
    "miou": "mIoU",
    "pixel_accuracy": "Pixel accuracy",
    "rmse": "RMSE (m)",
    "abs_rel": "AbsRel",
    "delta1": "δ < 1.25",
    "pck": "PCK",
    "oks": "OKS",
    "bleu4": "BLEU-4",
    "cider": "CIDEr",
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "nll": "NLL (bits)",
}
"""Metric -> how it is written on an axis; others stand as they are named."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 1, 1, 1)),
    (0, (1, 0.8)),
    (0, (3, 1, 1, 1, 1, 1)),
)
FILLINGS = ("full", "none", "left", "top")
SHADES = ("#111111", "#888888", "#555555", "#bbbbbb")
ENDS: dict[str, tuple[str, Any]] = {
    "ceiling": ("uncoded", (0, (5, 2))),
    "floor": ("no bits", (0, (1, 1.5))),
}
"""Kind of an end of a curve -> its name in the legend and the dashes of its line."""

COLUMN_IN, PAGE_IN = 3.5, 7.16
"""Widths of one column and of a page of two [inch]."""

SUFFIXES = (".png", ".svg", ".pdf")

_TICKS = {"width": 0.6, "size": 2.5}
_STYLE: Any = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **{f"{axis}tick.major.{what}": v for axis in "xy" for what, v in _TICKS.items()},
    "xtick.minor.width": 0.4,
    "xtick.minor.size": 1.5,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.hashsalt": "fcbench",
    "pdf.fonttype": 42,
}
_PANELS_A_ROW = 4


@dataclass(frozen=True, slots=True)
class _Keys:
    """What tells panels, codecs and encoders apart: the columns, and their values in order."""

    panel_by: list[str]
    codec_by: list[str]
    encoder_by: list[str]
    panels: list[tuple]
    codecs: list[tuple]
    encoders: list[tuple]


def figure(
    df: pd.DataFrame,
    x: str = "bpp",
    metric: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Rate-accuracy curves, one panel a task (and a data set, a size, where there are several).

    Curves join the raw points in order of rate. With several seeds the line and the band are means over seeds, and
    each seed's points are drawn small. Rows that failed are counted in a footnote.

    Args:
        df: columns of `fcbench.types.RatePoint`, as `fcbench.results.load` gives them.
        x: rate on the logarithmic axis, one of `X_LABELS`.
        metric: drawn in every panel that has it; None for each task's primary one.
        labels: how metrics are written, over `METRIC_LABELS`.

    Raises:
        FcbenchError: unknown x or metric, no coded points, NaN or no positive rate in a measured row, more codecs
            or encoders than can be told apart.
    """
    if x not in X_LABELS:
        raise FcbenchError(unknown("rate axis", x, X_LABELS))
    ok = _drawable(df, x, metric)
    keys = _keys(ok)
    names = {**METRIC_LABELS, **(labels or {})}
    with matplotlib.rc_context(_STYLE):
        fig, axes = _grid(len(keys.panels))
        for ax, panel in zip(axes, keys.panels):
            rows = _select(ok, keys.panel_by, panel)
            _panel(ax, rows, x, keys)
            ax.set_title(_text(panel), pad=4)
            ax.set_ylabel(_metric_label(rows, names), labelpad=2)
        coded = ok.loc[ok["kind"] == "coded", x]
        _rate_axis(axes, float(coded.min()), float(coded.max()))
        n_failed = df.loc[df["status"] != "ok", "point"].nunique()
        note = f"\n(failed points, not drawn: {n_failed})" if n_failed else ""
        fig.supxlabel(X_LABELS[x] + note, fontsize=7.5)
        _legend(fig, ok, keys)
        fig.canvas.draw()
    return fig


def save(fig: Figure, path: Path | str) -> Path:
    """Write a figure as its suffix says, png at 300 dpi; the same figure gives the same bytes.

    Raises:
        FcbenchError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FcbenchError(
            f"cannot draw to {path.name!r}; the suffix must be one of {', '.join(SUFFIXES)}."
        )
    kind = path.suffix.lower()[1:]
    date = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        no_date = {date: None} if date else None
        fig.savefig(buffer, format=kind, dpi=300, metadata=no_date)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise FcbenchError(
            f"cannot write {path}: {error.strerror}; choose another -o."
        ) from error
    return path


# --------------------------------------------------------------------------------------------- rows
def _drawable(df: pd.DataFrame, x: str, metric: str | None) -> pd.DataFrame:
    """Measured rows of the metric asked for. Raises `FcbenchError` as `figure` says."""
    if df.empty:
        raise FcbenchError("no rows to draw; run `fcbench run` first.")
    ok = df[df["status"] == "ok"]
    if ok.empty:
        raise FcbenchError(
            f"no rows to draw: all {len(df)} failed; see their column 'status'."
        )
    known = sorted(set(ok["metric"]))
    if metric is not None and metric not in known:
        raise FcbenchError(unknown("metric", metric, known))
    ok = ok[ok["primary"]] if metric is None else ok[ok["metric"] == metric]
    coded = ok["kind"] == "coded"
    if not coded.any():
        raise FcbenchError(
            "no coded points to draw, only ceilings or floors; run a codec first."
        )
    values = ok["value"].isna() | np.isinf(ok["value"])
    rates = coded & ~(np.isfinite(ok[x]) & (ok[x] > 0))
    for bad, what in ((values, "finite value"), (rates, f"positive {x}")):
        if bad.any():
            raise FcbenchError(
                f"{int(bad.sum())} measured rows have no {what} (first: point {ok.loc[bad, 'point'].iloc[0]}); "
                "delete them and run again."
            )
    return ok


def _keys(ok: pd.DataFrame) -> _Keys:
    """Split the rows by what varies among them, in order of appearance."""
    coded = ok[ok["kind"] == "coded"]

    def by(first: str, others: Sequence[str]) -> list[str]:
        return [first, *(c for c in others if coded[c].nunique() > 1)]

    def values(rows: pd.DataFrame, columns: list[str]) -> list[tuple]:
        return list(rows[columns].drop_duplicates().itertuples(index=False, name=None))

    panel_by = by("task", ("dataset", "image_size"))
    codec_by = by("codec", ("objective",))
    encoder_by = by("encoder", ("weights_origin", "split", "neck", "head"))
    keys = _Keys(
        panel_by,
        codec_by,
        encoder_by,
        values(ok, panel_by),
        values(coded, codec_by),
        values(coded, encoder_by),
    )
    _check_few(keys.codecs, "codecs", len(COLOURS))
    _check_few(keys.encoders, "encoders", len(LINES))
    shown = [*panel_by, *codec_by, *encoder_by, "params", "seed"]
    twice = coded[coded.duplicated(shown)]
    if len(twice):
        raise FcbenchError(
            f"got {len(twice)} rows that differ from others in nothing the figure shows (first: point "
            f"{twice['point'].iloc[0]}); draw one suite and one revision of the data at a time."
        )
    return keys


def _check_few(found: Sequence[tuple], what: str, allowed: int) -> None:
    if len(found) > allowed:
        raise FcbenchError(
            f"got {len(found)} {what} ({', '.join(map(_text, found))}); at most {allowed} can be told apart: "
            "draw fewer at a time."
        )


def _select(rows: pd.DataFrame, columns: list[str], values: tuple) -> pd.DataFrame:
    return rows[(rows[columns] == list(values)).all(axis=1)]


def _text(key: Sequence[Any]) -> str:
    return ", ".join(str(part) for part in key if str(part))


def _metric_label(rows: pd.DataFrame, names: Mapping[str, str]) -> str:
    metric = str(rows["metric"].iloc[0])
    label = names.get(metric, metric)
    return label if rows["higher_is_better"].iloc[0] else f"{label}, lower is better"


# ------------------------------------------------------------------------------------------ drawing
def _grid(n_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a column for one panel, else as a page; rows of at most four panels."""
    n_rows = math.ceil(n_panels / _PANELS_A_ROW)
    n_cols = math.ceil(n_panels / n_rows)
    width = COLUMN_IN if n_panels == 1 else PAGE_IN
    height = 2.5 if n_panels == 1 else 1.75 * n_rows + 0.55
    fig = Figure(figsize=(width, height))
    fig.set_layout_engine("constrained", w_pad=0.06)
    axes = list(fig.subplots(n_rows, n_cols, sharex=True, squeeze=False).flat)
    for ax in axes[n_panels:]:
        ax.remove()
    return fig, axes[:n_panels]


def _panel(ax: Axes, rows: pd.DataFrame, x: str, keys: _Keys) -> None:
    for (e, encoder), (c, codec) in itertools.product(
        enumerate(keys.encoders), enumerate(keys.codecs)
    ):
        one = _select(rows, keys.encoder_by, encoder)
        for kind, dashes in (("ceiling", (0, (5, 2))), ("floor", (0, (1, 1.5)))):
            ends = one.loc[one["kind"] == kind, "value"]
            if c == 0 and len(ends):
                ax.axhline(ends.mean(), color=SHADES[e], ls=dashes, lw=0.9, zorder=1.5)
        points = _select(one[one["kind"] == "coded"], keys.codec_by, codec)
        if len(points):
            _curve(ax, points, x, e, c)


def _curve(ax: Axes, points: pd.DataFrame, x: str, e: int, c: int) -> None:
    """One codec on one encoder: means over seeds, bands, and the seeds themselves."""
    colour = COLOURS[c]
    columns = [x, "value", "ci_low", "ci_high"]
    mean = points.groupby("params", sort=False)[columns].mean().sort_values(x)
    band = mean.dropna(subset=["ci_low", "ci_high"])
    ax.fill_between(
        band[x], band["ci_low"], band["ci_high"], color=colour, alpha=0.15, lw=0
    )
    if points["seed"].nunique() > 1:
        ax.plot(points[x], points["value"], MARKERS[c], ms=1.5, color=colour, alpha=0.6)
    ax.plot(mean[x], mean["value"], **_line(e, c))


def _line(e: int, c: int) -> dict[str, Any]:
    return {
        "color": COLOURS[c],
        "ls": LINES[e],
        "lw": 1.1,
        "marker": MARKERS[c],
        "ms": 3.8,
        "mew": 0.8,
        "mec": COLOURS[c],
        "mfc": "white" if FILLINGS[e] == "none" else COLOURS[c],
        "mfcalt": "white",
        "fillstyle": "full" if FILLINGS[e] == "none" else FILLINGS[e],
    }


def _end(e: int, dashes: Any) -> dict[str, Any]:
    return {"color": SHADES[e], "ls": dashes, "lw": 0.9}


def _rate_axis(axes: Sequence[Axes], low: float, high: float) -> None:
    """Logarithmic, with at most five plain numbers as labels."""
    room = (high / low) ** 0.05 if high > low else 1.5
    low, high = low / room, high * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def ticks(steps: Sequence[float]) -> list[float]:
        every = [step * 10.0**d for d in decades for step in steps]
        return [t for t in every if low <= t <= high]

    choices = [ticks(s) for s in ((1, 2, 5), (1, 3), (1,))] + [ticks((1,))[::2]]
    major = next((t for t in choices if len(t) <= 5), choices[-1])
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(FixedLocator(major))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(FixedLocator(ticks(range(1, 10))))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(labelbottom=True)


def _legend(fig: Figure, ok: pd.DataFrame, keys: _Keys) -> None:
    """Codecs by colour and marker, encoders by line and shade, the two ends: above the panels, a group a column."""
    groups: list[list[tuple[str, Any]]] = [[], [], []]
    codecs, encoders, ends = groups
    for c, codec in enumerate(keys.codecs):
        style = {**_line(0, c), "ls": "none", "ms": 4.5}
        codecs.append((_text(codec), Line2D([], [], **style)))
    for e, encoder in enumerate(keys.encoders):
        style = {**_line(e, 0), "color": SHADES[e], "mec": SHADES[e], "marker": "h"}
        style["mfc"] = "white" if FILLINGS[e] == "none" else SHADES[e]
        encoders.append((_text(encoder), Line2D([], [], **style)))
    for kind, (label, dashes) in ENDS.items():
        shades = range(len(keys.encoders)) if (ok["kind"] == kind).any() else ()
        lines = tuple(Line2D([], [], **_end(e, dashes)) for e in shades)
        ends += [(label, lines)] if lines else []
    n_rows = _legend_rows([[len(t) for t, _ in g] for g in groups], fig.get_figwidth())
    entries: list[tuple[str, Any]] = []
    for group in groups:
        entries += group
        entries += [(" ", Line2D([], [], ls="none"))] * (-len(group) % n_rows)
    fig.set_figheight(fig.get_figheight() + 0.15 * n_rows)
    fig.legend(
        [handle for _, handle in entries],
        [label for label, _ in entries],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
        loc="outside upper center",
        ncols=len(entries) // n_rows,
        frameon=False,
        handlelength=3.2,
        handletextpad=0.6,
        columnspacing=1.4,
    )


def _legend_rows(groups: Sequence[Sequence[int]], width_in: float) -> int:
    """Fewest rows at which groups of labels, each with so many characters, fit a width, no two in one column.

    A character of 7 points is about 0.056 inch wide, the handle and the gaps beside it 0.52 inch.
    """
    longest = max(len(g) for g in groups)
    for n_rows in range(1, longest):
        columns = [g[i : i + n_rows] for g in groups for i in range(0, len(g), n_rows)]
        if sum(0.056 * max(column) + 0.52 for column in columns) < width_in:
            return n_rows
    return longest
