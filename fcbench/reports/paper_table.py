"""The paper's tables: single necks and pairs of necks, absolute and normalized, and how they were trained."""

from collections.abc import Callable, Sequence

import pandas as pd

from fcbench.analysis.paper import Cell, frame
from fcbench.reports.tables import Document, Table, shown
from fcbench.results.row import OK

EMBEDDED = (
    "The embedded encoders are fcbench's own: small, trained by us on procedural scenes. Findings about them need not "
    "hold for the published ones."
)
RANDOM = "Random weights: the numbers show that the path works, and nothing else."
LEGEND = (
    "Uncoded features. Shares: value over the reference's value, or its inverse where lower is better (rmse): less "
    "than 1 is a loss. In parentheses: 95 % intervals over test samples, paired with the reference, and over seeds if "
    "there are several. Cross-neck: a task's neck and head on the output of a frozen neck, which was trained for "
    "another task, or for the same one (the control)."
)
SETTINGS = {"frozen, task": "frozen decoder, distillation off", "frozen, both": "frozen decoder, distillation on"}
MATRICES: tuple[tuple[str, Callable[[Cell], str]], ...] = (
    ("value", lambda c: shown(c.value, ".4g")),
    ("share of the general encoder's value", lambda c: shown(c.of_general, ".3f")),
    ("share of the value behind the task's own neck alone", lambda c: shown(c.of_direct, ".3f")),
    ("steps of the training, and why it ended", lambda c: " ".join(map(" ".join, zip(map(str, c.steps), c.stops)))),
)
"""Title and text of a cell of each matrix."""


def document(cells: Sequence[Cell], rows: pd.DataFrame, general: str, notes: Sequence[str]) -> Document:
    """Tables of each setting: single necks, then pairs; and notes about what was measured. `rows`: all rows."""
    tables = []
    for setting in dict.fromkeys(c.setting for c in cells):
        for title, text in MATRICES:
            for name, pairs in (("single-neck", False), ("cross-neck", True)):
                matching = [c for c in cells if c.setting == setting and bool(c.chain.before) == pairs]
                matching = [c for c in matching if c.encoder != general] if "general" in title else matching
                matching = matching if pairs or "own neck" not in title else []
                tables += (
                    [_matrix(f"{name}, {SETTINGS.get(setting, setting)}: {title}", matching, text)] if matching else []
                )
    return Document(tables, "cells", frame(list(cells)), LEGEND, [*measured(rows, general), *notes])


def _matrix(title: str, cells: Sequence[Cell], text: Callable[[Cell], str]) -> Table:
    tasks = {c.chain.task: c.metric for c in cells}
    order = list(dict.fromkeys([*tasks, *(t for c in cells for t in c.chain.before)]))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for c in sorted(cells, key=lambda c: (c.n_layers, [order.index(t) for t in c.chain.before])):
        rows.setdefault((str(c.n_layers), *c.chain.before, c.encoder), {})[c.chain.task] = text(c)
    header = ["layers", *["neck of"] * len(cells[0].chain.before), "encoder"]
    body = [[*key, *(row.get(t, "") for t in tasks)] for key, row in rows.items()]
    return Table(title, [*header, *(f"{t} ({metric})" for t, metric in tasks.items())], body, n_left=len(header))


def measured(rows: pd.DataFrame, general: str) -> list[str]:
    """What was measured, one line each."""
    ok = rows[rows["status"] == OK]
    out = []
    for (name, origin), _ in ok.groupby(["encoder", "weights_origin"], sort=False):
        out.append(f"{'General' if name == general else 'Special'} encoder: {name}, weights {origin}.")
    origins = set(ok["weights_origin"])
    out += [EMBEDDED] * ("embedded" in origins) + [RANDOM] * any(o.startswith("random") for o in origins)
    first = ok.iloc[0]
    out.append(
        f"Data: {first['dataset']}, {first['n_train']} training and {first['n_samples']} test images of "
        f"{first['image_size']} pixels, split point {', '.join(dict.fromkeys(ok['split']))}, seeds "
        f"{', '.join(map(str, sorted(set(ok['seed']))))}."
    )
    trained = ok.drop_duplicates("point")
    n = int((trained["task_stop"] == "plateau").sum())
    out.append(
        f"Readouts: width {first['width']}, {first['task_batch']} images per step, at most {first['task_steps']} steps."
        f" A training ends when the last doubling of its steps gained less than {first['tolerance']:.0%} of the "
        f"held-out loss: {n} of {len(trained)} did, the others reached the cap."
    )
    failed = rows[rows["status"] != OK].drop_duplicates("point")["status"].tolist()
    return out + [f"{len(failed)} points failed, first: {reason}" for reason in failed[:1]]
