"""Comparisons as tables."""

import math
from collections.abc import Iterable, Sequence

from fcbench.analysis.compare import Comparison, frame
from fcbench.analysis.curves import Loss
from fcbench.analysis.published import MARK
from fcbench.reports.tables import NOTHING, Document, Notes, Table

COLUMNS = ("codec", "points", "left (%)", "BD-rate (%)", "BD-accuracy", "overlap (%)")
"""Columns of every table; the rate at the target comes last, named by its unit."""

UNITS = {"bpp": "bpp", "bpfp": "bpfp", "bytes_per_sample": "bytes/image", "bpp_content": "bpp of content"}
LEGEND = (  # {} is the loss
    "BD-rate: mean extra rate at equal accuracy, negative if fewer bits are needed. BD-accuracy: mean difference "
    "of the metric at equal rate. In brackets: 95 % paired-bootstrap intervals. Overlap of the curves' accuracies / "
    "rates. Target: the uncoded ceiling less {}; an interval ends in never if it may be out of reach of every measured "
    "rate. Left: bits that endless training would save, extrapolated, of a codec that had not converged."
)
_MAX_REASON = 160


def document(comparisons: Sequence[Comparison], notes: Sequence[str], loss: Loss = Loss()) -> Document:
    """Comparisons, one table per data set, encoder, task and metric, in order. `loss`: the loss they were made with."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.dataset, c.encoder, c.task, c.metric), []).append(c)
    return Document(
        [_table(group) for group in groups.values()], "comparisons", frame(comparisons), LEGEND.format(loss), notes
    )


def _table(group: Sequence[Comparison]) -> Table:
    first = group[0]
    notes = Notes()
    rows = [_cells(c, notes) for c in group]
    metric = first.metric or "no metric: all failed"
    direction = "" if first.higher_is_better else ", lower is better"
    title = f"{first.dataset} / {first.encoder} / {first.task}: {metric}{direction}; "
    title += _one_or_several("anchor", (c.anchor for c in group))
    targets = [f"{c.target:.4g}" for c in group if c.target is not None]
    if targets:
        title += "; " + _one_or_several("target", targets)
    return Table(title, (*COLUMNS, f"{UNITS[first.rate_unit]} at target"), rows, notes.lines)


def _one_or_several(what: str, values: Iterable[str]) -> str:
    different = list(dict.fromkeys(values))
    return f"{what}{'s' * (len(different) > 1)} {' | '.join(different)}"


def _cells(c: Comparison, notes: Notes) -> list[str]:
    points = str(c.n_points)
    if c.n_failed:
        why = c.failure if len(c.failure) <= _MAX_REASON else c.failure[: _MAX_REASON - 1] + "…"
        points += f", {c.n_failed} failed" + notes.mark(f"{c.codec} failed: {why}")
    shares = (c.quality_overlap, c.rate_overlap)
    overlap = " / ".join(NOTHING if s is None else f"{100 * s:.0f}" for s in shares)
    return [
        c.codec + (notes.mark(f"{MARK}: {c.source}") if c.source else ""),
        points,
        left(c.left_percent),
        notes.cell(c.bd_rate_percent, "+.1f") + notes.mark(c.doubt),
        notes.cell(c.bd_accuracy, "+.4f"),
        overlap if set(shares) != {None} else NOTHING,
        notes.cell(c.rate_at_target, ".3g"),
    ]


def left(percent: float | None) -> str:
    """Text for `open_ended.left_percent`: what more training would save."""
    if percent is None:
        return NOTHING
    return "not known" if math.isnan(percent) else f"{percent:.0f}"
