"""The matrices of a cross-neck analysis as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcbench.analysis.compare import Number
from fcbench.analysis.cross_neck import DEEP, DIRECT, Entry, Matrices, Placed
from fcbench.reports import tables
from fcbench.reports.tables import Block
from fcbench.results.chain import Chain

COLUMNS = (
    "dataset",
    "encoder",
    "role",
    "chain",
    "task",
    "metric",
    "higher_is_better",
    "neck",
    "codec",
    "figure",
    "value",
    "low",
    "high",
    "reason",
)

PLACED_HEADER = ("encoder", "chain", "metric", "codec", "extra bits (%)", "accuracy at equal bits")
MATRICES = (
    ("value", ".4g", "value"),
    ("ratio to the direct neck", ".3f", "ratio"),
    ("usable bits per image", ".1f", "information"),
    ("usable bits per image lost against the direct neck", ".1f", "lost"),
)
"""Title, format and field of `Entry` of each matrix."""


def flat(found: Matrices) -> list[dict[str, Any]]:
    """One figure a record."""
    out = []
    for e in found.entries:
        about = {**_about(e.dataset, e.encoder, e.chain, e.metric, e.higher_is_better), "role": e.role}
        for name, n in (
            ("value", e.value),
            ("ratio", e.ratio),
            ("usable_bits", e.information),
            ("usable_bits_lost", e.lost),
        ):
            out.append(about | _figure(name, n))
    for p in found.placed:
        about = _about(p.dataset, p.encoder, p.chain, p.metric, p.higher_is_better)
        about |= {"codec": p.codec, "role": "between less before"}
        out.append(about | _figure("extra_rate_at_equal_accuracy_percent", p.extra_rate_percent))
        out.append(about | _figure("accuracy_at_equal_rate", p.accuracy_at_equal_rate))
    return out


def _about(dataset: str, encoder: str, chain: Chain, metric: str, higher: bool) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "encoder": encoder,
        "chain": chain.name,
        "task": chain.task,
        "metric": metric,
        "higher_is_better": higher,
        "neck": chain.neck,
        "codec": "",
    }


def _figure(name: str, n: Number) -> dict[str, Any]:
    return {"figure": name, "value": n.value, "low": n.low, "high": n.high, "reason": n.reason}


def comma_separated(found: Matrices) -> str:
    """CSV, one figure a line."""
    return tables.comma_separated(COLUMNS, flat(found))


def shown(n: Number, form: str) -> str:
    """A figure with its interval; ``--`` where there is none."""
    return tables.figure(n, lambda v: format(v, form))


def markdown(found: Matrices) -> str:
    """A matrix an encoder (rows: what the features went through; columns: whose head reads), then where to code."""
    blocks = []
    for encoder in dict.fromkeys(e.encoder for e in found.entries):
        own = [e for e in found.entries if e.encoder == encoder]
        for title, form, of in MATRICES:
            blocks.append(_matrix(f"{encoder}: {title}", own, of, form))
    if found.placed:
        blocks.append(_placements(found.placed))
    return tables.markdown(blocks, found.notes)


def _matrix(title: str, entries: Sequence[Entry], of: str, form: str) -> Block:
    tasks: dict[str, str] = {}
    for e in entries:
        tasks.setdefault(e.chain.task, e.metric)
    rows = []
    for name in levels(entries):
        own = {e.chain.task: e for e in entries if through(e) == name}
        cells = [shown(getattr(own[t], of), form) if t in own else "" for t in tasks]
        rows.append([name, *cells])
    header = ("through", *(f"{t} ({metric})" for t, metric in tasks.items()))
    return Block(title, header, rows, [])


def _placements(placed: Sequence[Placed]) -> Block:
    rows = [
        [
            p.encoder,
            p.chain.name,
            p.metric,
            p.codec,
            _or_reason(p.extra_rate_percent, "+.1f"),
            _or_reason(p.accuracy_at_equal_rate, "+.4f"),
        ]
        for p in placed
    ]
    title = "Coded between the necks, less coded before the first"
    return Block(title, PLACED_HEADER, rows, [], n_left=len(PLACED_HEADER))


def through(entry: Entry) -> str:
    """What the features went through before the task's own neck: a row of the matrix."""
    if entry.role == DIRECT:
        return "nothing (direct)"
    if entry.role == DEEP:
        return f"nothing ({entry.chain.neck})"
    return " > ".join(entry.chain.above)


def levels(entries: Sequence[Entry]) -> list[str]:
    """Rows of a matrix: direct necks, then one level of adaptation, then two, each in the order of the tasks."""
    above = [task for e in entries for task in e.chain.above]
    tasks = list(dict.fromkeys([*(e.chain.task for e in entries), *above]))

    def rank(e: Entry) -> tuple[int, bool, list[int], str]:
        order = [tasks.index(t) for t in e.chain.above]
        return len(order), e.role == DEEP, order, e.chain.neck

    return list(dict.fromkeys(through(e) for e in sorted(entries, key=rank)))


def _or_reason(n: Number, form: str) -> str:
    return n.reason if n.value is None else shown(n, form)
