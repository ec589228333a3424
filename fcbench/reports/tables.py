"""Tables as text: for a terminal, Markdown, LaTeX, CSV, JSON.

The first three show rounded numbers, with refusals as numbered notes under each table; CSV and JSON hold every number
in full precision, or an empty value with its reason.
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from fcbench.analysis.estimate import Estimate
from fcbench.core.errors import FcbenchError

NOTHING = "--"
NEVER = "never"  # End of the interval of a rate that resamples do not reach
WIDTH = 130  # Width of tables in a file or a pipe [characters]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells."""

    title: str  # names what the rows share
    header: Sequence[str]
    rows: list[list[str]]  # [n_rows][n_columns]; a cell without a value may end with the numbers of its notes
    notes: Sequence[str] = ()  # in order; the first is number 1
    n_left: int = 1  # number of first columns that are aligned left; the others are aligned right


@dataclass(frozen=True, slots=True)
class Document:
    """An analysis: tables for readers, a frame for programs."""

    tables: list[Table]
    records: str  # plural name of the frame's rows in JSON
    frame: pd.DataFrame
    legend: str = ""  # meaning of the columns
    notes: Sequence[str] = ()  # what could not be computed, one line each

    @property
    def after(self) -> list[str]:
        """Lines under the tables."""
        return [line for line in (self.legend, *self.notes) if line]


@dataclass(slots=True)
class Notes:
    """Reasons, numbered in order of appearance."""

    lines: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The number of a note, as a suffix to what it is about; empty without a text."""
        if not text:
            return ""
        if text not in self.lines:
            self.lines.append(text)
        return f" [{self.lines.index(text) + 1}]"

    def cell(self, number: Estimate, form: str) -> str:
        """A number with its interval, and the number of its note."""
        return shown(number, form) + self.mark(number.reason or number.note)


def shown(number: Estimate, form: str) -> str:
    """A number with its interval, each in a format, zero without a sign, an infinite one as `NEVER`; `NOTHING` if
    there is no value."""
    if number.value is None:
        return NOTHING
    numbers = [v for v in (number.value, number.low, number.high) if v is not None]
    value, *ends = (NEVER if v == math.inf else format(v or 0.0, form if v else form.lstrip("+")) for v in numbers)
    return f"{value} ({', '.join(ends)})" if ends else value


def terminal(document: Document, width: int | None = None) -> str:
    """Tables and the lines after them, for a width in characters; None: the terminal's, or `WIDTH` without one."""
    text, here = io.StringIO(), Console()
    columns = width or (here.width if here.is_terminal else WIDTH)
    console = Console(file=text, width=columns, highlight=False, color_system=None)  # plain, whatever FORCE_COLOR says
    for table in document.tables:
        grid = rich.table.Table(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(table.header):
            grid.add_column(Text(name), justify="left" if i < table.n_left else "right", overflow="fold")
        for row in table.rows:
            grid.add_row(*map(Text, row))
        console.print(grid)
        for number, note in enumerate(table.notes, 1):
            console.print(f"[{number}] {note}", markup=False)
        console.print()
    for line in document.after:
        console.print(line, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def grid(table: Table) -> str:
    """The cells of a table in GitHub's Markdown."""
    rule = ["---"] * table.n_left + ["---:"] * (len(table.header) - table.n_left)
    rows = (table.header, rule, *table.rows)
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in cells) + " |" for cells in rows)


def markdown(document: Document) -> str:
    """Tables in Markdown, then one paragraph per line after them."""
    paragraphs: list[str] = []
    for table in document.tables:
        paragraphs += [f"**{table.title}**", grid(table)]
        notes = [f"[{n}] {note}  " for n, note in enumerate(table.notes, 1)]
        paragraphs += ["\n".join(notes)] if notes else []
    return "\n\n".join([*paragraphs, *document.after]) + "\n"


def latex(document: Document) -> str:
    r"""One ``tabular`` per table with the rules of ``booktabs`` (``\usepackage{booktabs}``)."""
    lines = [r"% needs \usepackage{booktabs}", *(f"% {line}" for line in document.after)]
    for i, table in enumerate(document.tables):
        n = len(table.header)
        align = "l" * table.n_left + "r" * (n - table.n_left)
        lines += [""] if i else []
        lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        lines += [rf"\multicolumn{{{n}}}{{l}}{{\textbf{{{_tex(table.title)}}}}} \\", r"\midrule"]
        head, *rows = (" & ".join(map(_tex, cells)) + r" \\" for cells in (table.header, *table.rows))
        lines += [head, r"\midrule", *rows]
        for k, note in enumerate(table.notes, 1):
            lines.append(rf"\multicolumn{{{n}}}{{l}}{{\footnotesize{{{_tex(f'[{k}] {note}')}}}}} \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


_TEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "…": r"\dots{}"}
    # a row that begins with a bracket would be read as an option of the row before it
    | {"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}"}
)


def _tex(text: str) -> str:
    return re.sub(r"(^|[ (])-(?=\d)", r"\1$-$", text.translate(_TEX))


def comma_separated(document: Document) -> str:
    """The frame as CSV, without notes."""
    return str(document.frame.to_csv(index=False, lineterminator="\n"))


def as_json(document: Document) -> str:
    """The frame, one record per row, and the notes."""
    frame = document.frame.astype(object)
    records = frame.astype(object).where(frame.notna(), None).replace(math.inf, NEVER).to_dict("records")
    return json.dumps({document.records: records, "notes": list(document.notes)}, indent=1, allow_nan=False) + "\n"


WRITERS: dict[str, Callable[[Document], str]] = {
    ".txt": partial(terminal, width=WIDTH),
    ".csv": comma_separated,
    ".md": markdown,
    ".tex": latex,
    ".json": as_json,
}
"""Suffix of an output file -> its writer."""


def text(document: Document, suffix: str, output: Path | None) -> str:
    """A document in the format of a suffix, for a file or, without one, for the terminal."""
    return terminal(document) if suffix == ".txt" and output is None else WRITERS[suffix](document)


def check_suffix(path: Path, known: Iterable[str] = WRITERS) -> str:
    """The suffix of an output file. Raises `FcbenchError`: it names no format."""
    suffix = path.suffix.lower()
    if suffix not in known:
        raise FcbenchError(f"cannot tell the format of {path.name!r}; its suffix must be one of {', '.join(known)}.")
    return suffix
