"""Pictures of costs: bars with their intervals, and the efficiency curve."""

from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fcbench.analysis.cost import Cost, Costs, Kept, places
from fcbench.analysis.estimate import Estimate
from fcbench.reports.style import COLOURS, LINES, MARKERS, PAGE_IN, STYLE

_NEUTRAL = "#888888"
_GAIN, _COST = COLOURS[2:4]  # not the colours of encoders


def draw(costs: Costs) -> Figure:
    """Costs, and below them the efficiency of each task for which it was measured."""
    with rc_context(STYLE):
        return _draw(costs)


def _draw(costs: Costs) -> Figure:
    tasks = list(dict.fromkeys(k.task for k in costs.efficiency))
    height = 0.9 + 0.42 * len(_bars(costs)) / 1.6
    fig = Figure(figsize=(PAGE_IN, height + (2.3 if tasks else 0)), layout="constrained")
    ratios = [height, 2.3] if tasks else [height]
    parts = fig.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    _draw_bars(parts[0].subplots(1, 3), costs)
    first = costs.costs[0]
    parts[0].suptitle(f"{first.special} less {first.general}: green is a gain, purple a cost, grey neither")
    if tasks:
        axes = parts[1].subplots(1, len(tasks), squeeze=False)[0]
        for ax, task in zip(axes, tasks):
            _draw_kept(ax, [k for k in costs.efficiency if k.task == task], task)
        axes[0].set_ylabel("Usable bits kept (per image)")
        handles, labels = axes[0].get_legend_handles_labels()
        parts[1].legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return fig


def _bars(costs: Costs) -> list[tuple[Cost, str, int]]:
    named = zip(costs.costs, places(costs.costs))
    return [(c, place, i) for c, place in named for i in range(max(1, len(c.coded)))]


def _draw_bars(axes: Sequence[Axes], costs: Costs) -> None:
    bars = _bars(costs)
    names = [_name(*bar) for bar in bars]
    for ax, title in zip(axes, ("uncoded metric (%)", "extra bits at equal accuracy (%)", "usable bits (%)")):
        ax.set_title(title)
        ax.axvline(0, color="#000000", lw=0.6)
        ax.set_ylim(len(bars) - 0.4, -0.6)
        ax.set_yticks(range(len(bars)), names if ax is axes[0] else [""] * len(bars))
    for y, (c, _, i) in enumerate(bars):
        if i == 0:
            _bar(axes[0], y, _relative(c.uncoded, c.uncoded_general), c.higher_is_better)
            _bar(axes[2], y, _relative(c.information, c.information_general), True)
        if c.coded:
            _bar(axes[1], y, c.coded[i].extra_rate_percent, False)


def _name(c: Cost, place: str, i: int) -> str:
    codec = c.coded[i].codec if c.coded else ""
    return ", ".join(filter(None, (f"{c.task} ({c.metric})", place, codec))) if i == 0 else codec


def _relative(difference: Estimate, general: Estimate) -> Estimate:
    if difference.value is None or not general.value or general.value < 0:
        return Estimate(reason=difference.reason or "no positive value to divide by")
    scale = 100 / general.value
    ends = [None if v is None else scale * v for v in (difference.low, difference.high)]
    return Estimate(scale * difference.value, ends[0], ends[1])


def _bar(ax: Axes, y: int, n: Estimate, higher_is_better: bool) -> None:
    """Draw a bar: green for a gain, purple for a cost, grey if the interval holds zero; a text if it has no value."""
    if n.value is None:
        style: dict[str, Any] = {"va": "center", "fontsize": 6, "color": _NEUTRAL}
        ax.annotate("no value", (0, y), (3, 0), textcoords="offset points", **style)
        return
    low, high = (n.low, n.high) if n.low is not None and n.high is not None else (0, 0)
    colour = _NEUTRAL
    if low > 0 or high < 0:
        colour = _GAIN if (low > 0) == higher_is_better else _COST
    ax.barh(y, n.value, color=colour, height=0.6, alpha=0.8)
    if n.low is not None and n.high is not None:
        ax.plot([n.low, n.high], [y, y], color="#000000", lw=0.9)


def _draw_kept(ax: Axes, kept: Sequence[Kept], task: str) -> None:
    encoders = list(dict.fromkeys(k.encoder for k in kept))
    codecs = [", ".join(filter(None, (k.codec, place))) for k, place in zip(kept, places(kept))]
    for e, encoder in enumerate(encoders):
        for c, codec in enumerate(dict.fromkeys(codecs)):
            line = [k for k, of in zip(kept, codecs) if (k.encoder, of) == (encoder, codec)]
            if not line:
                continue
            x, y = [k.sent for k in line], [k.kept.value or 0.0 for k in line]
            style = {"color": COLOURS[e % len(COLOURS)], "ls": LINES[c % len(LINES)]}
            style |= {"marker": MARKERS[c % len(MARKERS)], "label": f"{encoder}, {codec}"}
            ax.plot(x, y, ms=3, lw=1, **style)
            ends = [(k.kept.low, k.kept.high) for k in line]
            if all(low is not None for low, _ in ends):
                lows, highs = ([v or 0.0 for v in side] for side in zip(*ends))
                ax.fill_between(x, lows, highs, color=style["color"], alpha=0.12, lw=0)
    ax.set_xscale("log")
    ax.set_title(task)
    ax.set_xlabel("Bits sent (per image)")
