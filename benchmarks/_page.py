"""Tables of records, and the page of a suite's measured tables. Findings are written by hand, in README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.core.files import write_atomically
from fcbench.reports.paper_table import EMBEDDED
from fcbench.reports.tables import Table, grid

SECTIONS = (
    ("Single necks", "How do the neck's capacity, the head and the neck's loss affect both encoders, uncoded?", "grid"),
    (
        "Cost of specialization",
        "What does the special encoder cost each task in accuracy, bits and usable information?",
        "cost",
    ),
    (
        "Cross-neck",
        "What does adapting to one task cost the others, and where should features be coded?",
        "cross/cross_neck",
    ),
    ("Split point", "How do bits at equal accuracy depend on the depth of the split?", "splits"),
    ("Similarity", "Do the features differ at all? (linear CKA by stage)", "cka"),
    ("Planted effects", "Does the suite find what was taken away, and nothing if nothing was?", "planted"),
)
"""Title, question, and the files (.md, and .png if there is one) with the measurements."""


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Records as PATH.csv, in full, and PATH.md, rounded. A record need not have every column."""
    if not records:
        return

    def cell(v: Any) -> str:
        return "" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)

    columns = list(dict.fromkeys(name for r in records for name in r))
    write_atomically(path.with_suffix(".csv"), pd.DataFrame(records).to_csv(index=False, lineterminator="\n"))
    rounded = [[cell(r.get(name)) for name in columns] for r in records]
    write_atomically(path.with_suffix(".md"), grid(Table("", columns, rounded, n_left=len(columns))) + "\n")


def write_page(encoders: Sequence[str], dataset: str, seeds: Sequence[int], out: Path) -> None:
    """Write tables.md of a results folder: questions, and the measured tables and figures."""
    lines = ["# How universal are the features? What was measured", ""]
    lines += [EMBEDDED, ""] if any("nano" in e for e in encoders) else []
    shown = ", ".join(map(str, seeds))
    lines += [f"General: `{encoders[0]}`. Special: `{encoders[1]}`. Data: `{dataset}`. Seeds: {shown}.", ""]
    for title, question, stem in SECTIONS:
        table, figure = out / f"{stem}.md", out / f"{stem}.png"
        if not table.exists():
            continue
        lines += [f"## {title}", "", f"*Asked:* {question}", "", "*Measured:*", ""]
        lines += [table.read_text(encoding="utf-8")]
        lines += [f"![{title}]({stem}.png)", ""] if figure.exists() else []
    write_atomically(out / "tables.md", "\n".join(lines))
