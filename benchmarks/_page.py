"""Tables of records, and the page of a suite's measured tables. Findings are written by a reader, in README.md."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EMBEDDED = (
    "The embedded encoders are fcbench's own: small, trained by us on procedural scenes. What holds for them need not "
    "hold for the published ones."
)
SECTIONS = (
    ("Single necks", "What do the neck's capacity, the head and the neck's loss do to both encoders, uncoded?", "grid"),
    (
        "Cost of specialization",
        "What does the special encoder cost each task, in accuracy, in bits, in usable information?",
        "cost",
    ),
    (
        "Cross-neck",
        "What does adapting to one task throw away of the others, and where should one code?",
        "cross/cross_neck",
    ),
    ("Split point", "How do bits at equal accuracy depend on the depth of the split?", "splits"),
    ("Similarity", "Do the features differ at all? (linear CKA by stage)", "cka"),
    ("Planted effects", "Does the suite find what was taken away, and nothing where nothing was?", "planted"),
)
"""Title, what was asked, and the files (.md, and .png where there is one) that say what was measured."""


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Records as PATH.csv, in full, and PATH.md, rounded."""
    if not records:
        return
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)

    def cell(v: Any) -> str:
        return "" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)

    lines = ["| " + " | ".join(records[0]) + " |", "|" + " --- |" * len(records[0])]
    lines += ["| " + " | ".join(cell(v) for v in r.values()) + " |" for r in records]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_page(encoders: Sequence[str], dataset: str, seeds: Sequence[int], out: Path) -> None:
    """tables.md of a results folder: what was asked, and the measured tables and figures."""
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
    (out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
