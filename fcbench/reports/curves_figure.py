"""Rate-accuracy figures from a table of rate points. Imports no torch.

One panel per task for all encoders, or a grid of panels, task by encoder. Curves join the raw points in order of rate,
with gaps where a codec had not converged; bands are the rows' 95 % intervals. The uncoded ceiling is dashed, the floor
without any bits is dotted, label coding (the task's own output, coded) is a star on a line: no codec for that one task
should need more. Curves that others published are grey and dashed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcbench.analysis import published, situations, variants
from fcbench.analysis.open_ended import is_open
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.reports import style
from fcbench.reports.style import COLUMN_IN, METRIC_LABELS, PAGE_IN, STYLE, X_LABELS
from fcbench.results.row import OK

OVERLAY_CURVES = 6  # Curves that may share a panel before several encoders get panels of their own
COMPLEXITY = {
    "encode_ms": "Encoding\n(ms per image)",
    "decode_ms": "Decoding\n(ms per image)",
    "encode": "Encoding\n(kMAC per pixel)",
    "decode": "Decoding\n(kMAC per pixel)",
    "peak_mb": "Memory\n(MB at the peak)",
}
"""Cost of coding -> label of its axis: a column, or a stage in the column ``kmac_per_px``."""
NETWORKS = {
    **{"encode_ms": ["encoder_ms"], "decode_ms": ["neck_ms", "head_ms"]},
    **{"encode": ["encoder"], "decode": ["neck", "head"]},
}
"""Cost of coding -> those of the networks on the same side, which are added."""

_PANELS_A_ROW = 4


@dataclass(frozen=True, slots=True)
class _Keys:
    """Distinct panels (task, data), codecs and encoders, in order of appearance."""

    panels: list[str]
    encoders: list[str]
    codecs: style.Codecs
    labels: list[str]


def figure(
    df: pd.DataFrame,
    x: str = "bpp",
    metric: str | None = None,
    anchors: Sequence[str] = (),
    grid: bool | None = None,
) -> Figure:
    """Rate-accuracy curves.

    With several seeds the line and the band are means over seeds, and each seed's points are drawn small. A footnote
    counts failed points, by codec. `df`: columns of `fcbench.results.row.RatePoint`, from
    `fcbench.analysis.situations.load`. `x`: rate on the logarithmic axis, one of `X_LABELS`. `metric`: drawn in every
    panel that has it; None for each task's primary one. `anchors`: codecs to draw in grey; ``remote`` for
    all image codecs. `grid`: one panel per task and encoder; None: if more than `OVERLAY_CURVES` curves would share a
    panel. Raises `FcbenchError`: unknown x, metric or anchor, no coded points, NaN or no positive rate in a measured
    row, more codecs or (without a grid) encoders than can be told apart.
    """
    df, left_out = published.in_unit(df, x)
    ok = _drawable(df, x, metric)
    ok, keys = _keys(ok, anchors, grid)
    with matplotlib.rc_context(STYLE):
        fig, cells = _panels(keys)
        for (panel, encoder), ax in list(cells.items()):
            rows = ok[ok["panel"] == panel]
            ax.set_ylabel(_metric_label(rows), labelpad=2)
            of_encoder = rows if encoder is None else rows[rows["encoder_label"] == encoder]
            if of_encoder["kind"].isin(situations.CURVES).any():
                _panel(ax, of_encoder, x, keys)
            else:
                cells.pop((panel, encoder)).set_visible(False)
        drawn = ok.loc[ok["kind"].isin(situations.SENT), x]
        low, high = float(drawn.min()), float(drawn.max())
        style.log_axis(list(cells.values()), "x", low, high)
        fig.supxlabel(
            X_LABELS[x] + _of_encoder(keys) + _failures(df) + "".join(f"\n({line})" for line in left_out), fontsize=7.5
        )
        ends = [line for kind, line in style.ENDS.items() if (ok["kind"] == kind).any()]
        together = keys.encoders if keys.codecs.overlay else []  # encoders that the legend must distinguish
        style.legend(fig, keys.codecs, together, ends, keys.labels, is_open(ok).any())
        fig.canvas.draw()
    return fig


def complexity(
    df: pd.DataFrame,
    x: str = "bpp",
    metric: str | None = None,
    anchors: Sequence[str] = (),
) -> Figure:
    """Costs of coding (one column of panels each) against the rate (first row) and the accuracy (one row per task).

    A vertical line is the cost of the network beside the codec where features are sent: before encoding, the encoder's;
    after decoding, that of neck and head (in the first row, of every task). A cost of 0, such as the operations of a
    codec without a network, does not fit a logarithmic axis and is left out. For the arguments see `figure`. Raises
    `FcbenchError`: see `figure`; also rows in which no cost was measured.
    """
    df, _ = published.in_unit(df[df["kind"] != Kind.PUBLISHED], x)
    ok = _drawable(df, x, metric)
    ok, keys = _keys(ok, anchors, False)
    lines = ok[ok["kind"].isin(situations.CURVES)]
    # files that tasks share are drawn once
    lines = lines.assign(file=situations.own_tasks(lines) + situations.data_labels(lines))
    stages = [json.loads(cell or "{}") for cell in lines["kmac_per_px"]]
    for stage in ("encode", "decode", "encoder", "neck", "head"):
        lines = lines.assign(**{stage: [float(s.get(stage, 0)) for s in stages]})
    costs = {c: text for c, text in COMPLEXITY.items() if (lines[c] > 0).any()}
    if not costs:
        raise FcbenchError("no row has a time or a count of operations to draw; run the suite again with this version.")
    with matplotlib.rc_context(STYLE):
        n_rows, n_cols = 1 + len(keys.panels), len(costs)
        width = COLUMN_IN if n_cols == 1 else PAGE_IN
        fig = Figure(figsize=(width, 1.5 * n_rows + 0.5))
        fig.set_layout_engine("constrained", w_pad=0.06)
        axes = fig.subplots(n_rows, n_cols, sharex="col", sharey="row", squeeze=False)
        for column, cost in zip(axes.T, costs):
            paid = lines[lines[cost] > 0]
            paid = paid.assign(beside=paid[NETWORKS.get(cost, [])].sum(axis=1))
            both = pd.concat([paid[cost], paid.loc[paid["beside"] > 0, "beside"]])
            once = paid.drop_duplicates(["codec_label", "encoder_label", "file", "params", "seed"])
            for _, of_file in once.groupby("file", sort=False):
                _against(column[0], of_file, cost, x, keys)
            _networks(column[0], paid, keys)
            for ax, panel in zip(column[1:], keys.panels):
                own = paid[paid["panel"] == panel]
                _against(ax, own, cost, "value", keys)
                _networks(ax, own, keys)
            style.log_axis(list(column), "x", float(both.min()), float(both.max()))
            column[-1].set_xlabel(costs[cost])
        style.log_axis(list(axes[0]), "y", float(lines[x].min()), float(lines[x].max()))
        axes[0, 0].set_ylabel(X_LABELS[x])
        for ax, panel in zip(axes[1:, 0], keys.panels):
            rows = ok[ok["panel"] == panel]
            ax.set_ylabel(f"{panel}\n{_metric_label(rows)}")
        note = _of_encoder(keys).removeprefix("; ") + _failures(df)
        if note:
            fig.supxlabel(note.strip(), fontsize=7.5)
        networks = [style.NETWORKS] if lines[sum(NETWORKS.values(), [])].gt(0).any(axis=None) else []
        together = keys.encoders if keys.codecs.overlay else []
        style.legend(fig, keys.codecs, together, networks, (), is_open(ok).any())
        fig.canvas.draw()
    return fig


# --------------------------------------------------------------------------------------------- rows
def _drawable(df: pd.DataFrame, x: str, metric: str | None) -> pd.DataFrame:
    """Measured rows of the requested metric. Raises `FcbenchError`: see `figure`."""
    if df.empty:
        raise FcbenchError("no rows to draw; run `fcbench run` first.")
    ok = df[df["status"] == OK]
    if ok.empty:
        raise FcbenchError(f"no rows to draw: all {len(df)} failed; see their column 'status'.")
    known = sorted(set(ok["metric"]))
    if metric is not None and metric not in known:
        raise FcbenchError(unknown("metric", metric, known))
    ok = ok[ok["primary"]] if metric is None else ok[ok["metric"] == metric]
    coded = ok["kind"].isin(situations.CURVES)
    if not coded.any():
        raise FcbenchError("no coded points to draw, only ceilings or floors; run a codec first.")
    values = ok["value"].isna() | np.isinf(ok["value"])
    rates = coded & ~(np.isfinite(ok[x]) & (ok[x] > 0))
    for bad, what in ((values, "finite value"), (rates, f"positive {x}")):
        if bad.any():
            raise FcbenchError(
                f"{int(bad.sum())} measured rows have no {what} (first: point {ok.loc[bad, 'point'].iloc[0]}); "
                "delete them and run again."
            )
    return ok


def _keys(ok: pd.DataFrame, anchors: Sequence[str], grid: bool | None) -> tuple[pd.DataFrame, _Keys]:
    several_data = ok["dataset"].nunique() > 1 or ok["image_size"].nunique() > 1
    data = situations.data_labels(ok)
    ok = ok.assign(
        codec_label=situations.codec_labels(ok),
        encoder_label=situations.encoder_labels(ok),
        panel=ok["task"] + ", " + data if several_data else ok["task"],
    )
    lines = ok[ok["kind"].isin(situations.CURVES)]
    names, encoders = (list(dict.fromkeys(lines[c])) for c in ("codec_label", "encoder_label"))
    dashed = frozenset(lines.loc[lines["kind"] == Kind.PUBLISHED, "codec_label"])
    chosen = _anchors(lines, anchors, names)
    grey = [n for n in names if n in chosen or n in dashed]
    if grid is None:
        grid = len(encoders) > 1 and len(names) * len(encoders) > OVERLAY_CURVES
    _check_few(names, "codecs", len(style.MARKERS))
    _check_few([] if grid else encoders, "encoders", len(style.LINES))
    shown = ["panel", "codec_label", "encoder_label", "params", "seed"]
    twice = lines[lines.duplicated(shown)]
    if len(twice):
        raise FcbenchError(
            f"got {len(twice)} rows that the figure cannot tell from others (first: point "
            f"{twice['point'].iloc[0]}); draw one suite and one revision of the data at a time."
        )
    coloured = [n for n in names if n not in grey]
    overlay = not grid and len(encoders) > 1
    codecs = style.Codecs((*coloured, *grey), len(coloured), overlay, dashed)
    labels = list(dict.fromkeys(ok.loc[ok["kind"] == Kind.LABEL, "codec_label"]))
    return ok, _Keys(list(dict.fromkeys(lines["panel"])), encoders, codecs, labels)


def _anchors(lines: pd.DataFrame, anchors: Sequence[str], names: Sequence[str]) -> list[str]:
    kinds = sorted(set(lines["kind"]) - {Kind.CODED})
    for anchor in anchors:
        if anchor not in (*names, *kinds, *lines["codec"]):
            raise FcbenchError(unknown("anchor", anchor, [*names, *kinds]))
    meant = lines[["codec_label", "codec", "kind"]].isin(list(anchors)).any(axis=1)
    return [n for n in names if n in set(lines.loc[meant, "codec_label"])]


def _check_few(names: Sequence[str], what: str, allowed: int) -> None:
    if len(names) > allowed:
        raise FcbenchError(
            f"got {len(names)} {what} ({'; '.join(names)}); at most {allowed} can be told apart: "
            "draw fewer at a time."
        )


def _metric_label(rows: pd.DataFrame) -> str:
    metric = str(rows["metric"].iloc[0])
    label = METRIC_LABELS.get(metric, metric)
    return label if rows["higher_is_better"].iloc[0] else f"{label}, lower is better"


def _failures(df: pd.DataFrame) -> str:
    failed = df[df["status"] != OK].drop_duplicates("point")
    if failed.empty:
        return ""
    counts = failed.groupby("codec", sort=False)["point"].nunique()
    each = ", ".join(f"{codec} {n}" for codec, n in counts.items())
    return f"\n(failed points, not drawn: {len(failed)}; {each})"


def _of_encoder(keys: _Keys) -> str:
    return f"; {keys.encoders[0]}" if len(keys.encoders) == 1 else ""


# ------------------------------------------------------------------------------------------ drawing
def _panels(keys: _Keys) -> tuple[Figure, dict[tuple[str, str | None], Axes]]:
    """A figure as wide as a column for one panel, else as a page; its panels by task and encoder (None: all)."""
    if keys.codecs.overlay or len(keys.encoders) == 1:
        cells: list[tuple[str, str | None]] = [(p, None) for p in keys.panels]
        n_rows = math.ceil(len(cells) / _PANELS_A_ROW)
        n_cols = math.ceil(len(cells) / n_rows)
        share: bool | str = False
    else:
        cells = [(p, e) for e in keys.encoders for p in keys.panels]
        n_rows, n_cols, share = len(keys.encoders), len(keys.panels), "col"
        if n_cols == 1 and n_rows <= _PANELS_A_ROW:
            n_rows, n_cols, share = 1, n_rows, "row"
    one = len(cells) == 1
    fig = Figure(figsize=(COLUMN_IN if one else PAGE_IN, 2.5 if one else 1.75 * n_rows + 0.55))
    fig.set_layout_engine("constrained", w_pad=0.06)
    axes = list(fig.subplots(n_rows, n_cols, sharex=True, sharey=share, squeeze=False).flat)  # type: ignore[arg-type]
    for ax in axes[len(cells) :]:
        ax.remove()
    for i, ((panel, encoder), ax) in enumerate(zip(cells, axes)):
        if encoder is None or i < n_cols:
            both = encoder is not None and share == "row"
            title = f"{panel}, {encoder}" if both else panel
            ax.set_title(style.wrapped(title, fig.get_figwidth() / n_cols), pad=4)
        if encoder is not None and share == "col" and i % n_cols == n_cols - 1:
            name = style.wrapped(encoder, fig.get_figheight() / n_rows)
            ax.annotate(name, (1.04, 0.5), xycoords="axes fraction", rotation=270, va="center", fontsize=8)
    return fig, dict(zip(cells, axes))


def _panel(ax: Axes, rows: pd.DataFrame, x: str, keys: _Keys) -> None:
    for e, encoder in enumerate(keys.encoders):
        one = rows[rows["encoder_label"] == encoder]
        shade = e if keys.codecs.overlay else 0
        for kind, (_, dashes) in style.ENDS.items():
            ends = one[one["kind"] == kind]  # one per compared run
            by = ends[variants.READOUT] if variants.READOUT in ends else np.zeros(len(ends))
            for value in ends.groupby(by, sort=False)["value"].mean():
                ax.axhline(value, zorder=1.5, **style.end(shade, dashes))
        for name in keys.labels:
            labels = one[(one["kind"] == Kind.LABEL) & (one["codec_label"] == name)]
            if len(labels):
                _label_coding(ax, labels, x, style.SHADES[shade])
        for name in reversed(keys.codecs.names):
            points = one[one["kind"].isin(situations.CURVES) & (one["codec_label"] == name)]
            if len(points):
                _curve(ax, points, x, name, shade, keys.codecs)


def _curve(ax: Axes, points: pd.DataFrame, x: str, name: str, e: int, codecs: style.Codecs) -> None:
    colour = codecs.colour(name)
    columns = [x, "value", "ci_low", "ci_high"]
    mean = points.groupby("params", sort=False)[columns].mean().sort_values(x)
    band = mean.dropna(subset=["ci_low", "ci_high"])
    if name in codecs.names[: codecs.n_coloured]:
        ax.fill_between(band[x], band["ci_low"], band["ci_high"], color=colour, alpha=0.13, lw=0)
    if points["seed"].nunique() > 1:
        marker = style.MARKERS[codecs.names.index(name)]
        ax.plot(points[x], points["value"], marker, ms=1.5, color=colour, alpha=0.6)
    ax.plot(mean[x], mean["value"], **codecs.line(name, e, is_open(points).any()))


def _label_coding(ax: Axes, points: pd.DataFrame, x: str, colour: str) -> None:
    mean = points.groupby("params", sort=False)[[x, "value"]].mean().sort_values(x)
    ax.plot(mean[x], mean["value"], color=colour, **style.LABEL_LINE)
    if len(mean) == 1:
        ax.axvline(
            float(mean[x].iloc[0]), color=colour, lw=style.LABEL_LINE["lw"], ls=style.LABEL_LINE["ls"], zorder=1.5
        )


def _networks(ax: Axes, rows: pd.DataFrame, keys: _Keys) -> None:
    """A line for what the networks beside the codec cost, one per encoder and task."""
    for (encoder, _), own in rows[rows["beside"] > 0].groupby(["encoder_label", "panel"]):
        shade = keys.encoders.index(encoder) if keys.codecs.overlay else 0
        ax.axvline(float(own["beside"].median()), zorder=1.5, **style.end(shade, style.NETWORKS[1]))


def _against(ax: Axes, rows: pd.DataFrame, cost: str, y: str, keys: _Keys) -> None:
    for e, encoder in enumerate(keys.encoders):
        shade = e if keys.codecs.overlay else 0
        for name in reversed(keys.codecs.names):
            curve = rows[(rows["encoder_label"] == encoder) & (rows["codec_label"] == name)]
            if len(curve):
                mean = curve.groupby("params", sort=False)[[cost, y]].mean()
                mean = mean.sort_values(y)
                line = {**keys.codecs.line(name, shade, is_open(curve).any()), "lw": 0.6}
                ax.plot(mean[cost], mean[y], **line)
