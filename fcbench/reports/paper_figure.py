"""Single necks: effect of the neck's capacity, the head and the neck's loss on both encoders, as a picture."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis.paper import Cell
from fcbench.reports.style import COLOURS, LINES, MARKERS, METRIC_LABELS, PAGE_IN, STYLE


def draw(cells: Sequence[Cell]) -> Figure:
    """Accuracy over the layers of the neck: panels by task, colours by encoder, dashes and markers by head and loss."""
    single = [c for c in cells if not c.chain.before and c.value.value is not None]
    tasks, settings, encoders = (
        list(dict.fromkeys(v))
        for v in ((c.chain.task for c in single), (c.setting for c in single), (c.encoder for c in single))
    )
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 2.7), layout="constrained")
        for ax, task in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks):
            of_task = [c for c in single if c.chain.task == task]
            for i, setting in enumerate(settings):
                for e, encoder in enumerate(encoders):
                    line = [c for c in of_task if (c.setting, c.encoder) == (setting, encoder)]
                    line = sorted(line, key=lambda c: c.n_layers)
                    shift = 0.12 * (2 * i + e - len(settings) + 0.5)
                    y = [c.value.value or 0.0 for c in line]
                    ax.errorbar(
                        [c.n_layers + shift for c in line],
                        y,
                        [
                            [v - (v if c.value.low is None else c.value.low) for v, c in zip(y, line)],
                            [(v if c.value.high is None else c.value.high) - v for v, c in zip(y, line)],
                        ],
                        color=COLOURS[e],
                        marker=MARKERS[i],
                        ls=LINES[i % len(LINES)],
                        ms=3,
                        lw=0.8,
                        elinewidth=0.6,
                        label=f"{encoder}, {setting}",
                    )
            ax.set_title(task)
            ax.set_xticks(sorted({c.n_layers for c in of_task}))
            ax.set_xlabel("Layers of the neck")
            ax.set_ylabel(METRIC_LABELS.get(of_task[0].metric, of_task[0].metric))
        handles, names = fig.axes[0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return fig
