"""Tables as text: blocks of cells with numbered notes for a terminal or in Markdown, records as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fcbench.analysis.compare import Number

NOTHING = "--"


@dataclass(frozen=True, slots=True)
class Block:
    """A table as cells.

    Attributes:
        title: names all that the rows share.
        rows: [n_rows][n_columns]; a cell that lacks a figure may end with the numbers of its notes.
        notes: in order; the first is number 1.
        n_left: so many first columns hold words and are aligned left, the others right.
    """

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]
    notes: list[str]
    n_left: int = 1


class Notes:
    """Reasons, numbered as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def mark(self, text: str) -> str:
        """The number of a note, to stand behind what it is on; nothing without a text."""
        if not text:
            return ""
        if text not in self.lines:
            self.lines.append(text)
        return f" [{self.lines.index(text) + 1}]"

    def cell(self, n: Number, show: Callable[[float], str]) -> str:
        """A figure with its interval, or the number of its note."""
        return figure(n, show) + (self.mark(n.reason) if n.value is None else "")


def figure(n: Number, show: Callable[[float], str]) -> str:
    """A figure with its interval; `NOTHING` where there is none."""
    if n.value is None:
        return NOTHING
    if n.low is None or n.high is None:
        return show(n.value)
    return f"{show(n.value)} ({show(n.low)}, {show(n.high)})"


def terminal(blocks: Iterable[Block], after: Iterable[str], width: int | None, piped: int) -> str:
    """Tables, then lines after them, so many characters wide; None: as the terminal, `piped` where there is none."""
    text, here = io.StringIO(), Console()
    width = width or (here.width if here.is_terminal else piped)
    console = Console(file=text, width=width, highlight=False)
    for block in blocks:
        table = Table(title=block.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(block.header):
            table.add_column(name, justify="left" if i < block.n_left else "right")
        for row in block.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(table)
        for number, note in enumerate(block.notes, 1):
            console.print(f"[{number}] {note}", markup=False)
        console.print()
    for line in after:
        console.print(line, markup=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def markdown(blocks: Iterable[Block], after: Iterable[str]) -> str:
    """Tables in Markdown (GitHub's), then paragraphs after them."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", r"\|") for c in cells) + " |"

    paragraphs: list[str] = []
    for block in blocks:
        n_right = len(block.header) - block.n_left
        rule = ["---"] * block.n_left + ["---:"] * n_right
        table = [row(cells) for cells in (block.header, rule, *block.rows)]
        paragraphs += [f"**{block.title}**", "\n".join(table)]
        if block.notes:
            notes = (f"[{n}] {note}  " for n, note in enumerate(block.notes, 1))
            paragraphs.append("\n".join(notes))
    return "\n\n".join([*paragraphs, *after]) + "\n"


def comma_separated(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    """CSV, one record a line; a column that a record lacks is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
