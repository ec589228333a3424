"""Rates by part, as a figure and as tables."""

import json
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis import parts, situations
from fcbench.analysis.compare import flat
from fcbench.analysis.parts import SHARES, PartsAtTarget
from fcbench.core.rates import CONTAINER, HEADERS
from fcbench.reports import style
from fcbench.reports.compare_table import UNITS
from fcbench.reports.style import COLOURS, PAGE_IN, STYLE
from fcbench.reports.tables import Document, Table

_AROUND = {CONTAINER: "#bbbbbb", HEADERS: "#777777", "seal": "#444444"}
_COLUMNS = 4
_LEGEND = "Bytes of the file by part, at the target: the uncoded ceiling less the loss."


def figure(rows: pd.DataFrame, x: str = "bpp") -> Figure:
    """Shares of each file by part: one panel per codec, encoder, data set and, where each has its own files, task; one
    bar per operating point. `rows`: of `fcbench.analysis.situations.load`. Raises `FcbenchError`: no row has parts."""
    points = parts.shares(rows)
    points = points.assign(own=situations.own_tasks(points))
    key = ["codec_label", "encoder_label", "own"] + ["data_label"] * (points["data_label"].nunique() > 1)
    panels = list(points.drop_duplicates([*key, "params"]).groupby(key, sort=False))
    found = {name for one in points[SHARES] for name in one}
    names = [n for n in _AROUND if n in found] + sorted(found - set(_AROUND), key=lambda n: (n[0] != "z", n))
    colours = _colours(names[len(found & set(_AROUND)) :])
    n_columns = min(_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 0.8 + 1.6 * n_rows), layout="constrained")
        axes = list(fig.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
        for ax, (name_of, curve) in zip(axes, panels):
            curve = curve.sort_values(x)
            below = [0.0] * len(curve)
            for name in names:
                heights = [100 * one.get(name, 0.0) for one in curve[SHARES]]
                ax.bar(range(len(curve)), heights, bottom=below, color=colours[name], label=name, width=0.85)
                below = [a + b for a, b in zip(below, heights)]
            ax.set_xticks(range(len(curve)), [f"{rate:.3g}" for rate in curve[x]])
            ax.set_title(style.wrapped(", ".join(filter(None, name_of)), PAGE_IN / n_columns))
            ax.tick_params("x", rotation=45)
            ax.grid(False)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        fig.supylabel("Share of the file (%)", fontsize=7.5)
        fig.supxlabel(f"Operating points, by rate ({UNITS[x]})", fontsize=7.5)
        handles, used = fig.axes[0].get_legend_handles_labels()
        style.place(fig, [list(zip(used, handles))])
    return fig


def _colours(names: Sequence[str]) -> dict[str, object]:
    """One colour per part; steps of a latent (``y0``, ``y1``, ... or ``y of stage1``, ...) share a scale, as do all
    parts if they are more than the colours."""
    others = [name for name in names if not (name[1:2].isdigit() or " of " in name)]
    others = others if len(others) <= len(COLOURS) else []
    steps = [name for name in names if name not in others]
    scale = matplotlib.colormaps["viridis"].resampled(max(1, len(steps)))
    return {**_AROUND, **{name: scale(i) for i, name in enumerate(steps)}, **dict(zip(others, COLOURS))}


def document(parts: Sequence[PartsAtTarget], notes: Sequence[str]) -> Document:
    """Parts of the rate at the target: one table per data set, encoder, task and metric."""
    groups: dict[tuple[str, ...], list[PartsAtTarget]] = {}
    for one in parts:
        groups.setdefault((one.of.dataset, one.of.encoder, one.of.task, one.of.metric), []).append(one)
    records = [flat(one.of) | {"parts": json.dumps(one.rates)} for one in parts]
    return Document([_table(group) for group in groups.values()], "rates", pd.DataFrame(records), _LEGEND, notes)


def _table(group: Sequence[PartsAtTarget]) -> Table:
    first = group[0].of
    rows = [
        [
            one.of.codec,
            ", ".join(f"{name} {rate:.3g}" for name, rate in one.rates.items() if rate > 0),
            f"{one.of.rate_at_target.value:.3g}",
        ]
        for one in group
    ]
    title = f"{first.dataset} / {first.encoder} / {first.task}: {first.metric}, target {first.target:.4g}"
    return Table(title, ("codec", "of which", UNITS[first.rate_unit]), rows, n_left=2)
