"""Rates by part, as a figure and as tables."""

import itertools
import json
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis import parts
from fcbench.analysis.compare import flat
from fcbench.analysis.parts import SHARES, PartsAtTarget
from fcbench.core.rates import CONTAINER, HEADERS
from fcbench.reports.compare_table import UNITS
from fcbench.reports.style import COLOURS, PAGE_IN, STYLE, wrapped
from fcbench.reports.tables import Document, Table

_AROUND = {CONTAINER: "#bbbbbb", HEADERS: "#777777", "seal": "#444444"}
_COLUMNS = 4
_LEGEND = "Bytes of the file by part, at the target: the uncoded ceiling less the loss."


def figure(rows: pd.DataFrame, x: str = "bpp") -> Figure:
    """Shares of each file by part: one panel per codec and encoder, one bar per operating point. `rows`: of
    `fcbench.analysis.situations.load`. Raises `FcbenchError`: no row has parts."""
    points = parts.shares(rows).drop_duplicates(["encoder_label", "codec_label", "params"])
    panels = list(points.groupby(["codec_label", "encoder_label"], sort=False))
    found = {name for one in points[SHARES] for name in one}
    names = [n for n in _AROUND if n in found] + sorted(found - set(_AROUND), key=lambda n: (n[0] != "z", n))
    colours = _colours(names[len(found & set(_AROUND)) :])
    n_columns = min(_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 0.8 + 1.6 * n_rows), layout="constrained")
        axes = list(fig.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
        for ax, ((codec, encoder), curve) in zip(axes, panels):
            curve = curve.sort_values(x)
            labels, below = [f"{rate:.3g}" for rate in curve[x]], [0.0] * len(curve)
            for name in names:
                heights = [100 * one.get(name, 0.0) for one in curve[SHARES]]
                ax.bar(labels, heights, bottom=below, color=colours[name], label=name, width=0.85)
                below = [a + b for a, b in zip(below, heights)]
            ax.set_title(wrapped(f"{codec}, {encoder}", PAGE_IN / n_columns))
            ax.tick_params("x", rotation=45)
            ax.grid(False)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        fig.supylabel("Share of the file (%)", fontsize=7.5)
        fig.supxlabel(f"Operating points, by rate ({UNITS[x]})", fontsize=7.5)
        handles, used = fig.axes[0].get_legend_handles_labels()
        fig.legend(handles, used, loc="outside upper center", ncols=min(len(used), 9), frameon=False)
    return fig


def _colours(names: Sequence[str]) -> dict[str, object]:
    """One colour per part; steps of one latent (``y0``, ``y1``, ...) share a scale."""
    steps = [name for name in names if name[1:2].isdigit()]
    scale = matplotlib.colormaps["viridis"].resampled(max(1, len(steps)))
    others = dict(zip([name for name in names if name not in steps], itertools.cycle(COLOURS)))
    return {**_AROUND, **{name: scale(i) for i, name in enumerate(steps)}, **others}


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
