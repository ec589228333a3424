"""The matrices of a cross-neck analysis as a picture."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from fcbench.analysis.cross_neck import Matrices
from fcbench.reports.cross_neck_table import matrix_rows, path_label
from fcbench.reports.style import PAGE_IN, STYLE, wrapped


def draw(matrices: Matrices) -> Figure:
    """Heat maps of the ratio to the direct neck, one per encoder."""
    encoders = list(dict.fromkeys(e.encoder for e in matrices.entries))
    names = matrix_rows(matrices.entries)
    tasks = list(dict.fromkeys(e.chain.task for e in matrices.entries))
    with rc_context({**STYLE, "axes.grid": False}):
        fig = Figure(figsize=(PAGE_IN, max(2.4, 0.8 + 0.26 * len(names))), layout="constrained")
        axes = fig.subplots(1, len(encoders), squeeze=False)[0]
        for ax, encoder in zip(axes, encoders):
            table = np.full((len(names), len(tasks)), np.nan)
            for e in matrices.entries:
                if e.encoder == encoder and e.ratio.value is not None:
                    at = names.index(path_label(e)), tasks.index(e.chain.task)
                    table[at] = e.ratio.value
            image = ax.imshow(table, cmap="RdBu", vmin=0.5, vmax=1.5, aspect="auto")
            ax.set_title(wrapped(encoder, PAGE_IN / len(encoders)))
            ax.set_xticks(range(len(tasks)), tasks)
            first = ax is axes[0]
            ax.set_yticks(range(len(names)), names if first else [""] * len(names))
            for (y, x), v in np.ndenumerate(table):
                if np.isfinite(v):
                    ink = "#ffffff" if abs(v - 1) > 0.35 else "#000000"
                    ax.text(x, y, f"{v:.2f}", ha="center", va="center", fontsize=6, color=ink)
        fig.colorbar(image, ax=axes, label="share of the direct neck's accuracy")
    return fig
