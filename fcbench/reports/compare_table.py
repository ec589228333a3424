"""Comparisons as text: for a terminal, CSV, Markdown, LaTeX, JSON.

The first, Markdown and LaTeX show rounded figures and put refusals into notes under each block; CSV and JSON hold
every figure in full, a missing one empty with its reason beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any

from fcbench.analysis.compare import LOSS_PERCENT, Comparison, Number
from fcbench.reports import tables
from fcbench.reports.tables import NOTHING, Block, Notes

COLUMNS = ("codec", "points", "BD-rate (%)", "BD-accuracy", "overlap (%)")
"""Of every block; the rate at the target comes last, under its unit."""

UNITS = {"bpp": "bpp", "bpfp": "bpfp", "bytes_per_sample": "bytes/image"}
WIDTH = 120
"""Of tables that go to a file or a pipe [characters]."""


def blocks(found: Sequence[Comparison]) -> list[Block]:
    """Comparisons grouped by data set, encoder, task, metric, in order."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for c in found:
        groups.setdefault((c.dataset, c.encoder, c.task, c.metric), []).append(c)
    return [_block(group) for group in groups.values()]


def _block(group: Sequence[Comparison]) -> Block:
    first = group[0]
    notes = Notes()
    rows = [_cells(c, notes) for c in group]
    metric = first.metric or "no metric: all failed"
    direction = "" if first.higher_is_better else ", lower is better"
    subject = " / ".join((first.dataset, first.encoder, first.task))
    title = f"{subject}: {metric}{direction}; anchor {first.anchor}"
    if first.target is not None:
        title += f"; target {first.target:.4g}"
    last = f"{UNITS[first.rate_unit]} at target"
    return Block(title, (*COLUMNS, last), rows, notes.lines)


def _cells(c: Comparison, notes: Notes) -> list[str]:
    points = str(c.n_points)
    if c.n_failed:
        why = c.failure if len(c.failure) <= 160 else c.failure[:159] + "…"
        points += f", {c.n_failed} failed" + notes.mark(f"{c.codec} failed: {why}")
    shares = (c.quality_overlap, c.rate_overlap)
    overlap = " / ".join(NOTHING if s is None else f"{100 * s:.0f}" for s in shares)
    return [
        c.codec,
        points,
        notes.cell(c.bd_rate_percent, lambda v: f"{v + 0.0:+.1f}" if v else "0.0"),
        notes.cell(c.bd_accuracy, lambda v: f"{v + 0.0:+.4f}" if v else "0.0"),
        overlap if set(shares) != {None} else NOTHING,
        notes.cell(c.rate_at_target, lambda v: f"{v:.3g}"),
    ]


LEGEND = (
    "BD-rate: mean extra rate at equal accuracy, negative where fewer bits are needed. BD-accuracy: mean difference "
    "of the metric at equal rate. In brackets: 95 % paired-bootstrap intervals. Overlap of the curves' accuracies / "
    "rates. "
    f"Target: the uncoded ceiling less {LOSS_PERCENT:g} %."
)
"""What the columns mean, under every table for readers."""


# -------------------------------------------------------------------------------------- for readers
def terminal(found: Sequence[Comparison], notes: Sequence[str], width: int | None = None) -> str:
    """Tables so many characters wide; None: as the terminal, `WIDTH` where there is none."""
    return tables.terminal(blocks(found), (LEGEND, *notes), width, WIDTH)


def markdown(found: Sequence[Comparison], notes: Sequence[str]) -> str:
    """Tables in Markdown (GitHub's)."""
    return tables.markdown(blocks(found), (LEGEND, *notes))


def latex(found: Sequence[Comparison], notes: Sequence[str]) -> str:
    r"""One ``tabular`` with the rules of ``booktabs`` (``\usepackage{booktabs}``)."""
    n = len(COLUMNS) + 1

    def across(text: str, style: str) -> str:
        return rf"\multicolumn{{{n}}}{{l}}{{{style}{{{_tex(text)}}}}} \\"

    lines = [
        rf"% needs \usepackage{{booktabs}}. {LEGEND.replace('%', chr(92) + '%')}",
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{l" + "r" * (n - 1) + "}",
        r"\toprule",
    ]
    for i, block in enumerate(blocks(found)):
        lines += [r"\midrule"] if i else []
        lines += [across(block.title, r"\textbf"), r"\midrule"]
        lines += [_tex_row(block.header), r"\midrule"]
        lines += [_tex_row(cells) for cells in block.rows]
        lines += [across(f"[{k}] {note}", r"\footnotesize") for k, note in enumerate(block.notes, 1)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex_row(cells: Sequence[str]) -> str:
    # a row that begins with a bracket would be read as an option of the row before it
    return " & ".join(map(_tex, cells)) + r" \\"


def _tex(text: str) -> str:
    special = {c: "\\" + c for c in "&%$#_{}"}
    special |= {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "…": r"\dots{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",
    }
    out = "".join(special.get(c, c) for c in text)
    for before in (" ", "("):
        for digit in "0123456789":
            out = out.replace(f"{before}-{digit}", f"{before}$-${digit}")
    return "$-$" + out[1:] if out[:1] == "-" and out[1:2].isdigit() else out


# ------------------------------------------------------------------------------------- for machines
def flat(c: Comparison) -> dict[str, Any]:
    """A comparison as one level of names and plain values: NAME, NAME_low, NAME_high, NAME_reason of a figure."""
    out: dict[str, Any] = {}
    for f in fields(c):
        value = getattr(c, f.name)
        if not isinstance(value, Number):
            out[f.name] = value
            continue
        out[f.name] = value.value
        out |= {f"{f.name}_{k}": v for k, v in asdict(value).items() if k != "value"}
    return out


def comma_separated(found: Sequence[Comparison], notes: Sequence[str]) -> str:
    """CSV, one comparison a line. Notes have no place in it."""
    rows = [flat(c) for c in found]
    return tables.comma_separated(list(rows[0]) if rows else [], rows)


def as_json(found: Sequence[Comparison], notes: Sequence[str]) -> str:
    """JSON: comparisons, and notes on what could not be had."""
    content = {"comparisons": [flat(c) for c in found], "notes": list(notes)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Comparison], Sequence[str]], str]] = {
    "table": terminal,
    "csv": comma_separated,
    "markdown": markdown,
    "latex": latex,
    "json": as_json,
}
"""Name of a format -> its writer."""

SUFFIXES = {".txt": "table", ".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json"}
"""Suffix of an output file -> its format."""
