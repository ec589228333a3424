"""Single necks, uncoded: effect of the neck's capacity, the head and the neck's loss on both encoders' accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis.cost import Cost, verdict
from fcbench.core import registry
from fcbench.reports.style import COLOURS, LINES, MARKERS, METRIC_LABELS, PAGE_IN, STYLE


def label(cost: Cost) -> str:
    """Head and loss: ``trained``; ``frozen, distill``."""
    return f"frozen, {cost.neck_loss}" if cost.neck_loss else cost.head


def records(found: Sequence[Cost]) -> Iterator[dict[str, Any]]:
    """One record per cell of the grid."""
    for c in found:
        yield {
            "task": c.task,
            "metric": c.metric,
            "neck": c.neck,
            "head": label(c),
            "seeds": len(c.seeds),
            "general": c.uncoded_general.value,
            "general_low": c.uncoded_general.low,
            "general_high": c.uncoded_general.high,
            "special": c.uncoded_special.value,
            "special_low": c.uncoded_special.low,
            "special_high": c.uncoded_special.high,
            "special_less_general": c.uncoded.value,
            "low": c.uncoded.low,
            "high": c.uncoded.high,
            "verdict": verdict(c.uncoded, c.higher_is_better),
        }


def draw(found: Sequence[Cost]) -> Figure:
    """Accuracy over the layers of the neck: panels by task, colours by encoder, dashes and markers by head and loss."""
    tasks = list(dict.fromkeys(c.task for c in found))
    labels = list(dict.fromkeys(map(label, found)))
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 2.7), layout="constrained")
        for ax, task in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks):
            own = [c for c in found if c.task == task]
            for i, head in enumerate(labels):
                cells = sorted((c for c in own if label(c) == head), key=_layers)
                for e, encoder in enumerate((own[0].general, own[0].special)):
                    ends = [(c.uncoded_general, c.uncoded_special)[e] for c in cells]
                    shift = 0.12 * (2 * i + e - len(labels) + 0.5)
                    drawn = [(c, n) for c, n in zip(cells, ends) if n.value is not None]
                    x = [_layers(c) + shift for c, _ in drawn]
                    y = [n.value or 0.0 for _, n in drawn]
                    bars = [
                        [v - (n.low or v) for v, (_, n) in zip(y, drawn)],
                        [(n.high or v) - v for v, (_, n) in zip(y, drawn)],
                    ]
                    ax.errorbar(
                        x,
                        y,
                        bars,
                        color=COLOURS[e],
                        marker=MARKERS[i],
                        ls=LINES[i % len(LINES)],
                        ms=3,
                        lw=0.8,
                        elinewidth=0.6,
                        label=f"{encoder}, {head}",
                    )
            ax.set_title(task)
            ax.set_xticks(sorted({_layers(c) for c in own}))
            ax.set_xlabel("Layers of the neck")
            ax.set_ylabel(METRIC_LABELS.get(own[0].metric, own[0].metric))
        handles, names = fig.axes[0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return fig


def _layers(cost: Cost) -> int:
    return int(registry.get("neck", cost.neck).n_layers or 0)
