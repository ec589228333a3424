"""Reasons to doubt a number: random weights, alarms, failures, trainings that ended early."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from fcbench.analysis import published
from fcbench.analysis.open_ended import CAP
from fcbench.results.row import OK

RANDOM = "random"
"""Prefix of the origin of random weights."""

_MAX_REASON = 200


def cautions(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Cautions of a set of rows, the worst first: ``level`` (red, amber, plain) and ``text``."""
    return [{"level": level, "text": text} for level, text in _cautions(rows)]


def _cautions(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    random = rows[rows["weights_origin"].str.startswith(RANDOM)]
    if len(random):
        yield "red", f"Random weights: {_names(random['encoder'])}. Numbers of these encoders are meaningless."
    failed = rows[rows["status"] != OK].drop_duplicates("point")
    if len(failed):
        reason = str(failed["status"].iloc[0])[:_MAX_REASON]
        yield "red", f"{len(failed)} points failed ({_names(failed['codec'])}), first: {reason}"
    alarms = rows[rows["rate_alarm"].fillna(False).astype(bool)].drop_duplicates("point")
    if len(alarms):
        yield "amber", (
            f"Rate alarm at {len(alarms)} points ({_names(alarms['codec_label'])}): size on disk and estimated size "
            "differ by more than 3 % + 16 bytes per image. The size on disk counts."
        )
    dirty = rows[rows["commit"].str.endswith("-dirty")]
    if len(dirty):
        yield "amber", f"{dirty['point'].nunique()} points were measured by a package that differed from its commit."
    for column, what, unit in (("task_stop", "neck and head", "the loss"), ("codec_stop", "the codec", "its bits")):
        capped = rows[rows[column] == CAP].drop_duplicates("point")
        if len(capped):
            rest = capped[column.replace("stop", "rest")].astype(float)
            span = f"about {rest.min():.0f} to {rest.max():.0f} % of {unit}"
            about = span if rest.notna().all() else "it is not known what"
            yield "plain", (
                f"At {len(capped)} points the training of {what} ran out of steps before a plateau: more training "
                f"might change the order of the curves ({about} would be saved)."
            )
    if rows["seed"].nunique() == 1:
        yield "plain", "One seed: intervals are over test images alone, not over training runs."


def of_point(rows: pd.DataFrame) -> str:
    """Remarks on one point for its tooltip; empty if nothing is wrong."""
    if source := published.source_of(rows):
        return f"{published.MARK}: {source}"
    said = ["rate alarm"] if rows["rate_alarm"].fillna(False).astype(bool).any() else []
    said += ["random weights"] if rows["weights_origin"].str.startswith(RANDOM).any() else []
    for column, what in (("codec_stop", "codec"), ("task_stop", "head")):
        stops = sorted(set(rows[column]) - {""})
        said += [f"{what} trained until: {', '.join(stops)}"] if stops else []
    return "; ".join(said)


def machines(rows: pd.DataFrame) -> list[str]:
    """Machines, one line per processor, GPU and number of threads; and the commits."""
    columns = ["device", "gpu", "cpu", "threads"]
    lines = []
    for row in rows[columns].drop_duplicates().itertuples(index=False):
        cells = [str(v) for v in (row.device, row.gpu, row.cpu) if v]
        cells += [] if pd.isna(row.threads) else [f"{row.threads} threads"]
        lines.append("computed on " + ", ".join(cells))
    return [*lines, "commits: " + (_names(rows["commit"]) or "not known")]


def _names(column: pd.Series) -> str:
    return ", ".join(sorted(set(column) - {""}))
