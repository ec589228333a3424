"""Costs of specialization as text: for a terminal, Markdown, CSV, JSON.

The first two show rounded figures, with refusals as notes under the table; CSV and JSON hold one figure a line, in
full, a missing one is empty and has its reason beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fcbench.analysis.compare import Number
from fcbench.analysis.cost import Cost, Costs, verdict
from fcbench.reports import tables
from fcbench.reports.tables import Block, Notes

WIDTH = 130
"""Of tables that go to a file or a pipe [characters]."""

LEGEND = (
    "Differences: special less general, with 95 % intervals (paired bootstrap over the test samples, and over seeds). "
    "Extra bits: mean extra rate at equal accuracy (BD-rate); accuracy: mean difference at equal rate (BD-accuracy). "
    "Usable bits: I_V(features -> target) per image, by readouts and a null model of one family. "
    "Cost or gain: where the interval leaves zero out."
)
"""What the columns mean, under every table for readers."""

HEADER = ("task", "figure", "general", "special", "difference", "")
KEPT_HEADER = ("task", "encoder", "codec", "bits sent", "usable bits kept", "share", "kept per bit sent")


N_WORDS = 2
"""First columns that hold words."""


def blocks(found: Costs) -> list[Block]:
    """A table of costs for each data set, neck and head, then one of the efficiency."""
    groups: dict[str, list[Cost]] = {}
    for c in found.costs:
        seeds = ", ".join(map(str, c.seeds))
        where = f"{c.dataset}, {c.n_samples} images, {c.neck}, {c.head} head"
        title = f"{c.special} less {c.general}; {where}, seed {seeds}"
        groups.setdefault(title, []).append(c)
    out = [_cost_block(title, group) for title, group in groups.items()]
    kept, notes = [], Notes()
    for k in found.efficiency:
        kept.append(
            [
                k.task,
                k.encoder,
                f"{k.codec} {k.params}",
                f"{k.sent:.0f}",
                notes.cell(k.kept, _in(".1f")),
                notes.cell(k.share, _in(".3f")),
                f"{k.per_bit:.4g}",
            ]
        )
    if kept:
        title = "Efficiency: usable bits per image behind each operating point"
        out.append(Block(title, KEPT_HEADER, kept, notes.lines, N_WORDS))
    return out


def _cost_block(title: str, group: Sequence[Cost]) -> Block:
    notes, rows = Notes(), []
    for c in group:
        better, name = c.higher_is_better, c.metric
        lines = [
            (name + " uncoded", c.uncoded, "+.4f", better, c.uncoded_general, c.uncoded_special),
            ("usable bits uncoded", c.information, "+.1f", True, c.information_general, c.information_special),
        ]
        empty = Number()
        for k in c.coded:
            lines += [
                (f"extra bits at equal {name} (%), {k.codec}", k.extra_rate_percent, "+.1f", False, empty, empty),
                (f"{name} at equal bits, {k.codec}", k.accuracy_at_equal_rate, "+.4f", better, empty, empty),
            ]
        for i, (what, n, form, up, general, special) in enumerate(lines):
            task = c.task + ("" if better else " (lower is better)") if i == 0 else ""
            ends = [_short(v) for v in (general, special)]
            rows.append([task, what, *ends, notes.cell(n, _in(form)), verdict(n, up)])
    return Block(title, HEADER, rows, notes.lines, N_WORDS)


def _in(form: str) -> Callable[[float], str]:
    """Shows a number in a format, zero never as a negative one."""
    return lambda v: format(v + 0.0, form)


def _short(n: Number) -> str:
    return "" if n.value is None else f"{n.value:.4g}"


# -------------------------------------------------------------------------------------- for readers
def terminal(found: Costs) -> str:
    """Tables as wide as the terminal, `WIDTH` where there is none."""
    after = (LEGEND, *found.notes)
    return tables.terminal(blocks(found), after, None, WIDTH)


def markdown(found: Costs) -> str:
    """Tables in Markdown (GitHub's)."""
    return tables.markdown(blocks(found), (LEGEND, *found.notes))


# ------------------------------------------------------------------------------------- for machines
def flat(found: Costs) -> list[dict[str, Any]]:
    """One figure a record: which, its unit, value, interval, or the reason why there is none."""
    return [*_flat_costs(found), *_flat_kept(found)]


def _flat_costs(found: Costs) -> Iterator[dict[str, Any]]:
    for c in found.costs:
        about = {
            "dataset": c.dataset,
            "task": c.task,
            "neck": c.neck,
            "head": c.head,
            "general": c.general,
            "special": c.special,
            "codec": "",
            "params": "",
            "n_samples": c.n_samples,
            "sent_bits": None,
        }
        for name, unit, n in (
            ("uncoded_general", c.metric, c.uncoded_general),
            ("uncoded_special", c.metric, c.uncoded_special),
            ("uncoded_difference", c.metric, c.uncoded),
            ("information_general", "bit/sample", c.information_general),
            ("information_special", "bit/sample", c.information_special),
            ("information_difference", "bit/sample", c.information),
        ):
            yield about | _figure(name, unit, n)
        for k in c.coded:
            own = about | {"codec": k.codec}
            yield own | _figure("extra_rate_at_equal_accuracy", "percent", k.extra_rate_percent)
            yield own | _figure("accuracy_at_equal_rate", c.metric, k.accuracy_at_equal_rate)


def _flat_kept(found: Costs) -> Iterator[dict[str, Any]]:
    for k in found.efficiency:
        about = {
            "dataset": k.dataset,
            "task": k.task,
            "neck": k.neck,
            "head": k.head,
            "encoder": k.encoder,
            "codec": k.codec,
            "params": k.params,
            "sent_bits": k.sent,
        }
        yield about | _figure("information_kept", "bit/sample", k.kept)
        yield about | _figure("share_kept", "", k.share)
        yield about | _figure("kept_per_bit_sent", "", Number(k.per_bit))


def _figure(name: str, unit: str, n: Number) -> dict[str, Any]:
    return {"figure": name, "unit": unit, "value": n.value, "low": n.low, "high": n.high, "reason": n.reason}


COLUMNS = (
    "dataset",
    "task",
    "neck",
    "head",
    "general",
    "special",
    "encoder",
    "codec",
    "params",
    "n_samples",
    "sent_bits",
    "figure",
    "unit",
    "value",
    "low",
    "high",
    "reason",
)


def comma_separated(found: Costs) -> str:
    """CSV, one figure a line. Notes have no place in it."""
    return tables.comma_separated(COLUMNS, flat(found))


def as_json(found: Costs) -> str:
    """JSON: figures, and notes on what could not be had."""
    content = {"figures": flat(found), "notes": list(found.notes)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Costs], str]] = {
    ".txt": terminal,
    ".csv": comma_separated,
    ".md": markdown,
    ".json": as_json,
}
"""Suffix of an output file -> its writer."""
