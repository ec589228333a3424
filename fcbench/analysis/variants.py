"""Comparison of runs: the columns that tell them apart, and their names."""

import json

import pandas as pd

from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError

FOLDER = "folder"  # Column that `situations.load` adds: the results folder of a row
VARIANT = "variant"  # Column that `add` adds: the difference between runs of a row's codec; empty if its runs agree
READOUT = "readout"  # Column that `add` adds: equal in rows with the same run's neck and head
COMMIT, BUDGET, MACHINE, VERSIONS = "commit", "budget", "machine", "versions"

BY: dict[str, tuple[str, ...]] = {
    COMMIT: ("commit",),
    BUDGET: tuple("n_train task_steps task_batch task_rate codec_steps codec_batch codec_rate tolerance".split()),
    MACHINE: ("device", "gpu", "cpu", "threads"),
    VERSIONS: ("versions",),
    FOLDER: (FOLDER,),
}
"""What runs may differ in -> the columns that state it."""

_SINCE_3 = (BUDGET, MACHINE)
_N_COMMIT = 9


def add(df: pd.DataFrame, by: str) -> pd.DataFrame:
    """Rows with `VARIANT` and `READOUT`. `by`: a key of `BY`. Raises `FcbenchError`: rows that do not state it, or that
    all agree."""
    if by in _SINCE_3 and (df["schema"] < 3).any():
        raise FcbenchError(f"rows of schema 2 do not state their {by}: give --by folder or --by commit.")
    told = _told(df, by)
    names = pd.Series("", index=df.index, dtype=object)
    for _, own in told.groupby(df["codec"], sort=False):
        varies = [c for c in own if own[c].nunique() > 1]
        cells = zip(*(own[c] for c in varies)) if varies else [()] * len(own)
        names.update(pd.Series([", ".join(filter(None, texts)) for texts in cells], own.index, dtype=object))
    of_codec = ~df["kind"].isin([Kind.CEILING, Kind.FLOOR])
    if not names[of_codec].any():
        raise FcbenchError(f"the rows of each codec agree in {by}: there is nothing to compare.")
    readout = told[[c for c in told if not str(c).startswith("codec_")]]
    return df.assign(**{VARIANT: names, READOUT: readout.agg("; ".join, axis=1)})


def labels(df: pd.DataFrame, label: pd.Series) -> pd.Series:
    """Labels with their variants appended, if rows have any."""
    if VARIANT not in df:
        return label
    return label.where(df[VARIANT] == "", label + ", " + df[VARIANT])


def firsts(df: pd.DataFrame, label: pd.Series) -> dict[str, str]:
    """Label with its variant -> that of the first variant of the same label, in row order."""
    full = labels(df, label)
    first = full.groupby(label, sort=False).transform("first")
    return dict(zip(full, first))


def readouts(df: pd.DataFrame, of: pd.DataFrame) -> pd.DataFrame:
    """Rows of the runs that trained the readouts of `of`; all rows if runs are not compared."""
    return df[df[READOUT].isin(set(of[READOUT]))] if READOUT in df else df


def _told(df: pd.DataFrame, by: str) -> pd.DataFrame:
    if by == VERSIONS:
        versions = pd.DataFrame([json.loads(cell or "{}") for cell in df["versions"]], index=df.index)
        return versions.apply(lambda column: f"{column.name} " + column.fillna("none").astype(str))
    texts = df[list(BY[by])].apply(lambda column: column.astype(object).where(column.notna(), "").map(_shown))
    if by == COMMIT:
        return texts["commit"].str.replace(rf"^(\w{{{_N_COMMIT}}})\w*", r"\1", regex=True).to_frame()
    if by == BUDGET or by == MACHINE:
        return texts.apply(lambda column: (f"{column.name} " + column).where(column != "", ""))
    return texts


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
