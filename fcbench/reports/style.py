"""Style of figures: colours, markers, lines, axes, legends. Independent of rows.

Colour and marker identify the codec. The line's dashes and the marker's filling identify the encoder if several share
a panel; otherwise they tell the second and third seven codecs from the first. So all stay distinct in print without
colour.

References:
    M. Okabe and K. Ito, "Color universal design", 2008 (the palette, without its yellow, which fades on white).
"""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically

SUFFIXES = (".png", ".svg", ".pdf")

X_LABELS = {
    "bpp": "Rate (bits per pixel)",
    "bpfp": "Rate (bits per feature point)",
    "bytes_per_sample": "Rate (bytes per image)",
    "bpp_content": "Rate without container and headers (bits per pixel)",
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
    "feature_snr": "SNR of features (dB)",
}
"""Metric -> its name on an axis; other metrics keep their own names."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "d", "8", "h", "*", "H")
LINES: tuple[Any, ...] = ("-", (0, (5, 1, 1, 1)), (0, (1, 0.8)), (0, (3, 1, 1, 1, 1, 1)))
FILLINGS = ("full", "none", "left", "top")
SHADES = ("#111111", "#888888", "#555555", "#bbbbbb")
GREYS = ("#777777", "#a0a0a0", "#8a8a8a", "#b8b8b8")
"""Colours of anchors."""
ENDS: dict[Kind, tuple[str, Any]] = {Kind.CEILING: ("uncoded", (0, (5, 2))), Kind.FLOOR: ("no bits", (0, (1, 1.5)))}
"""Kind of an end of a curve -> its name in the legend and the dashes of its line."""
NETWORKS: tuple[str, Any] = ("encoder (of the sender), neck and head (of the receiver)", (0, (1, 1)))
"""Name in the legend, and dashes, of the line for what networks cost beside coding."""
PUBLISHED_DASHES: Any = (0, (4, 2.5))
LABEL_LINE: dict[str, Any] = {"ls": (0, (2, 1)), "lw": 0.9, "marker": "*", "ms": 6.0, "mew": 0.4}

COLUMN_IN, PAGE_IN = 3.5, 7.16  # Widths of one column and of a page of two [inch]
_LETTERS_PER_IN = 16  # Of a title, in the panel and the space that its axis takes
_GROUPED_ROWS = 4
_GAP = 3  # in the lines of codecs that had not converged
_TICKS = {"width": 0.6, "size": 2.5}
STYLE: Any = {
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
    **{f"{axis}tick.minor.width": 0.4 for axis in "xy"},
    **{f"{axis}tick.minor.size": 1.5 for axis in "xy"},
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.hashsalt": "fcbench",
    "pdf.fonttype": 42,
}


def save(fig: Figure, path: Path | str) -> Path:
    """Write a figure in the format of its suffix, png at 300 dpi; the same figure gives the same bytes. Raises
    `FcbenchError`: another suffix, or the file cannot be written."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FcbenchError(f"cannot draw to {path.name!r}; the suffix must be one of {', '.join(SUFFIXES)}.")
    date = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    buffer = io.BytesIO()
    with rc_context(STYLE):
        fig.savefig(buffer, format=suffix[1:], dpi=300, metadata=date)
    write_atomically(path, buffer.getvalue(), "choose another -o")
    return path


@dataclass(frozen=True, slots=True)
class Codecs:
    """Styles of codecs."""

    names: tuple[str, ...]  # in order of their colours, anchors last
    n_coloured: int  # number of names before the anchors, which are grey
    overlay: bool  # several encoders share a panel
    published: frozenset[str] = frozenset()  # names of curves that were not measured here, drawn dashed

    def colour(self, name: str) -> str:
        """Colour of a codec; a grey for an anchor."""
        c = self.names.index(name)
        if c >= self.n_coloured:
            return GREYS[(c - self.n_coloured) % len(GREYS)]
        return COLOURS[c % len(COLOURS)]

    def line(self, name: str, e: int, is_open: bool = False) -> dict[str, Any]:
        """Properties of a codec's line on encoder number e, with wide gaps if the codec had not converged."""
        c = self.names.index(name)
        grey = c - self.n_coloured
        # with several encoders the dashes identify the encoder; otherwise they tell codecs of one colour apart
        alone = grey % len(LINES) if grey >= 0 else c // len(COLOURS)
        published = name in self.published
        which = 0 if published else e if self.overlay else alone
        colour, filling = self.colour(name), FILLINGS[which]
        return {
            "color": colour,
            "ls": PUBLISHED_DASHES if published else gapped(LINES[which]) if is_open else LINES[which],
            "lw": 0.9 if grey >= 0 else 1.1,
            "marker": MARKERS[c],
            "ms": 3.2 if grey >= 0 else 3.8,
            "mew": 0.8,
            "mec": colour,
            "mfc": "white" if filling == "none" else colour,
            "mfcalt": "white",
            "fillstyle": "full" if filling == "none" else filling,
            "zorder": 1.9 if grey >= 0 else 2.0,
        }


def gapped(line: Any) -> Any:
    """A line style with wide gaps.

    >>> gapped("-"), gapped((0, (5, 1, 1, 1)))
    ((0, (4, 3)), (0, (5, 3, 1, 3)))
    """
    if line == "-":
        return 0, (4, _GAP)
    return 0, tuple(_GAP if i % 2 else length for i, length in enumerate(line[1]))


def svg_path(marker: str) -> str:
    """Outline of a marker as an SVG path in the square from -1 to 1, y pointing down.

    >>> svg_path("s")
    'M-1 1L1 1L1 -1L-1 -1Z'
    """
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    outline = np.asarray(path.to_polygons()[0])[:-1]
    outline = outline[:: max(1, len(outline) // 24)] / abs(outline).max()
    return "M" + "L".join(f"{round(x, 2) + 0.0:g} {round(-y, 2) + 0.0:g}" for x, y in outline) + "Z"


def end(e: int, dashes: Any) -> dict[str, Any]:
    """Properties of the line for a ceiling or floor of encoder number e."""
    return {"color": SHADES[e], "ls": dashes, "lw": 0.9}


def wrapped(title: str, width_in: float) -> str:
    """A title in as many lines as a panel of that width needs, broken at blanks.

    >>> wrapped("classification, timm:tf_efficientnet_lite0, stage3", PAGE_IN / 3)
    'classification,\\ntimm:tf_efficientnet_lite0, stage3'
    """
    return textwrap.fill(title, max(1, int(_LETTERS_PER_IN * width_in)), break_long_words=False, break_on_hyphens=False)


def log_axis(axes: Sequence[Axes], which: str, low: float, high: float) -> None:
    """Make x or y logarithmic, with at most five plain numbers as labels."""
    room = (high / low) ** 0.05 if high > low else 1.5
    low, high = low / room, high * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def ticks(steps: Sequence[float]) -> list[float]:
        every = [step * 10.0**d for d in decades for step in steps]
        return [t for t in every if low <= t <= high]

    choices = [ticks(s) for s in ((1, 2, 5), (1, 3), (1,))] + [ticks((1,))[::2]]
    major = next((t for t in choices if len(t) <= 5), choices[-1])
    for ax in axes:
        axis = ax.xaxis if which == "x" else ax.yaxis
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        (ax.set_xlim if which == "x" else ax.set_ylim)(low, high)
        axis.set_major_locator(FixedLocator(major))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_locator(FixedLocator(ticks(range(1, 10))))
        axis.set_minor_formatter(NullFormatter())
        if which == "x":
            ax.tick_params(labelbottom=True)
        else:
            ax.tick_params(labelleft=True)


def legend(
    fig: Figure,
    codecs: Codecs,
    encoders: Sequence[str],
    lines: Sequence[tuple[str, Any]],
    labels: Sequence[str],
    is_open: bool = False,
) -> None:
    """Codecs by colour and marker, encoders by line and shade, ends and label coding: above, one group per column.

    `encoders`: those that share panels; empty if each panel has one. `lines`: names and dashes of straight lines that
    are drawn. `labels`: label codings that are drawn. `is_open`: a codec had not converged.
    """
    groups: list[list[tuple[str, Any]]] = [[], [], []]
    for name in codecs.names:
        style = {**codecs.line(name, 0), "ms": 4.5}
        style |= {"ls": "none"} if codecs.overlay and name not in codecs.published else {}
        groups[0].append((name, Line2D([], [], **style)))
    plain = Codecs(("",), 1, True)
    for e, encoder in enumerate(encoders):
        style = {**plain.line("", e), "color": SHADES[e], "mec": SHADES[e]}
        style |= {"marker": "h", "mfc": "white" if FILLINGS[e] == "none" else SHADES[e]}
        groups[1].append((encoder, Line2D([], [], **style)))
    shades = range(max(len(encoders), 1))
    for text, dashes in lines:
        groups[2].append((text, tuple(Line2D([], [], **end(e, dashes)) for e in shades)))
    for name in labels:
        groups[2].append((name, Line2D([], [], color=SHADES[0], **LABEL_LINE)))
    if is_open:
        groups[2].append(("not converged", Line2D([], [], color=SHADES[1], ls=gapped("-"), lw=1.1)))
    place(fig, groups)


def place(fig: Figure, groups: Sequence[list[tuple[str, Any]]]) -> None:
    """Place groups of entries above the panels, in as few rows as fit the width; the figure grows by them. Groups keep
    their own columns if that takes at most `_GROUPED_ROWS` rows, else they follow one another."""
    width = fig.get_figwidth()
    n_rows = _legend_rows([[len(t) for t, _ in g] for g in groups], width)
    if n_rows is None or n_rows > _GROUPED_ROWS:
        groups = [[entry for group in groups for entry in group]]
        lengths = [len(t) for t, _ in groups[0]]
        n_rows = _legend_rows([lengths], width) or len(lengths)
    entries: list[tuple[str, Any]] = []
    for group in groups:
        entries += group
        entries += [(" ", Line2D([], [], ls="none"))] * (-len(group) % n_rows)
    fig.set_figheight(fig.get_figheight() + 0.15 * n_rows)
    fig.legend(
        [handle for _, handle in entries],
        [text for text, _ in entries],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.4)},
        loc="outside upper center",
        ncols=len(entries) // n_rows,
        frameon=False,
        handlelength=3.2,
        handletextpad=0.6,
        columnspacing=1.4,
    )


def _legend_rows(groups: Sequence[Sequence[int]], width_in: float) -> int | None:
    """Fewest rows in which groups of labels, given by their numbers of characters, fit a width, no two in one column.

    None if they do not fit. A character of 7 points is about 0.056 inch wide, the handle and its gaps 0.52 inch.
    """
    for n_rows in range(1, max(len(g) for g in groups) + 1):
        columns = [g[i : i + n_rows] for g in groups for i in range(0, len(g), n_rows)]
        if sum(0.056 * max(column) + 0.52 for column in columns) < width_in:
            return n_rows
    return None
