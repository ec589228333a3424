"""Curves from rows: the columns that tell situations and codecs apart, and folders read together.

A *situation* is what two curves must share to be compared: the task, the data, the encoder, its neck and head. A
*curve* is the rows of one situation that differ in the operating point (and the seed) only.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fcbench.analysis import variants
from fcbench.analysis.variants import BUDGET, FOLDER, READOUT
from fcbench.core.codecs import OF_A_TASK, Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.registry import get, names
from fcbench.core.tasks import metric_values
from fcbench.results import table
from fcbench.results.folder import PROVENANCE, load_provenance
from fcbench.results.row import OK

MetricValues = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Metric values by name, [R], from statistics [N, S] of samples and how often each counts, [R, N]."""

MetricValuesOf = Callable[[str], "MetricValues | None"]  # A task's `MetricValues`; None if its plug-in has none
CURVES = (Kind.CODED, Kind.REMOTE, Kind.PUBLISHED)  # Kinds of rows that make curves
SENT = (*CURVES, Kind.LABEL)  # Kinds of rows that have a rate
SUBJECT = ("dataset", "encoder", "task")  # Columns that name a situation; the rest of `SITUATION` must then agree
SITUATION = (
    *SUBJECT,
    *("dataset_revision", "image_size", "weights_sha256", "split", "features_dtype"),
    *("neck", "head", "head_sha256", "neck_loss", "n_samples", "n_px"),
)
"""Columns that two curves must share to be compared."""

POINT = ("kind", "codec", "objective", "params", "seed", "metric")  # Columns that tell rows of one situation apart
_ENCODER = ("weights_origin", "split", "neck", "head", "neck_loss")
_DATA = ("image_size", "dataset_revision")
_BUDGET = ("budget", "n_train", "n_test")


def load(paths: Sequence[Path], by: str | None = None) -> pd.DataFrame:
    """Rows of one or several results folders, with the column `FOLDER`; each measured point once.

    `by`: a key of `variants.BY`: runs that differ in it are kept apart, like different codecs; None for one run. Raises
    `FcbenchError`: see `results.load` and `variants.add`; also folders of the same subject that differ in what must
    agree (data set revision, weights, split, neck, head, samples; training budget, unless runs are kept apart), or one
    point of one run with two values.
    """
    if by is not None and by not in variants.BY:
        raise FcbenchError(unknown("difference of runs", by, variants.BY))
    frames = [table.load(p).assign(**{FOLDER: str(p)}) for p in paths]
    full = [f for f in frames if len(f)]
    rows = pd.concat(full, ignore_index=True) if full else frames[0]
    rows = variants.add(rows, by) if by and full else rows
    for a, b in itertools.combinations([f for _, f in rows.groupby(FOLDER, sort=False)], 2):
        _check_compatible(a, b, by)
    return _each_once(rows)


def measured(df: pd.DataFrame, x: str) -> pd.Series:
    """Which rows can be drawn or fitted: status ok, a finite value and, if coded, a positive rate."""
    coded = df["kind"].isin(SENT)
    rate = df[x].astype(float)
    positive = np.isfinite(rate) & (rate > 0)
    return (df["status"] == OK) & np.isfinite(df["value"]) & (positive | ~coded)


def problem(row: pd.Series, x: str) -> str:
    """Why a row does not count as measured."""
    if row["status"] != OK:
        return str(row["status"])
    if not np.isfinite(row["value"]):
        return f"{row['metric']} is NaN or empty"
    return f"no positive {x}"


def codec_labels(df: pd.DataFrame) -> pd.Series:
    """Name of each row's codec, with the objective if it was trained for several, and its run (`variants`)."""
    return variants.labels(df, plain_codec_labels(df))


def plain_codec_labels(df: pd.DataFrame) -> pd.Series:
    """`codec_labels` without runs."""
    several = df.groupby("codec")["objective"].transform("nunique") > 1
    long = df["codec"] + ", " + df["objective"]
    return df["codec"].where(~several, long).astype(object)


def encoder_labels(df: pd.DataFrame) -> pd.Series:
    """Name of each row's encoder, with whatever else varies for that name."""
    label = _with_what_varies(df, "encoder", _ENCODER)
    several = df["weights_sha256"].groupby(label).transform("nunique") > 1
    return label.where(~several, label + ", " + df["weights_sha256"].str.slice(0, 8))


def data_labels(df: pd.DataFrame) -> pd.Series:
    """Name of each row's data set, with size and revision if there are several."""
    return _with_what_varies(df, "dataset", _DATA)


def own_tasks(df: pd.DataFrame) -> pd.Series:
    """Task of each row whose file is for that task alone; empty where all tasks read the same file."""
    return df["task"].where(df["objective"].isin(OF_A_TASK) | (df["kind"] == Kind.LABEL), "")


def _with_what_varies(df: pd.DataFrame, name: str, columns: Sequence[str]) -> pd.Series:
    label = df[name].astype(object)
    for column in columns:
        values = _kinds_of_heads(df, name) if column == "head" else df[column]
        groups = values.groupby([df[name], df["task"]])
        several = df[name].isin(df[name][groups.transform("nunique") > 1])
        label = label.where(~several, label + ", " + values)
    return label


def _kinds_of_heads(df: pd.DataFrame, name: str) -> pd.Series:
    """``trained`` or ``frozen``, with the decoder's name if a task has several frozen ones."""
    kind = df["head"].str.partition(":")[0]
    several = df["head"].groupby([df[name], df["task"], kind]).transform("nunique") > 1
    return kind.where(~several, df["head"])


def choose(df: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """Rows whose column is one of the names; all rows for no names. Raises `FcbenchError`: a name that is in no row."""
    for name in names:
        if not (df[column] == name).any():
            raise FcbenchError(unknown(column, name, sorted(set(df[column]) - {""})))
    return df[df[column].isin(names)] if names else df


def choose_codecs(df: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of codecs (or of kinds, such as ``remote``), and the ends of the curves; all rows for no names. Raises
    `FcbenchError`: a name that is in no row."""
    known = set(df["codec"]) | set(df["kind"])
    for name in names:
        if name not in known:
            raise FcbenchError(unknown("codec", name, sorted(known - {""})))
    kept = [*names, Kind.CEILING, Kind.FLOOR]
    return df[df["codec"].isin(kept) | df["kind"].isin(kept)] if names else df


def metric_values_of(task: str) -> MetricValues | None:
    """Metric values of a task's statistics; None for a task that is not registered. Imports its plug-in."""
    return partial(metric_values, get("task", task)) if task in names("task") else None


def _check_compatible(a: pd.DataFrame, b: pd.DataFrame, by: str | None) -> None:
    """Refuse two folders whose rows of one subject differ in what must agree."""
    shared = False
    for subject in sorted(_tuples(a, SUBJECT) & _tuples(b, SUBJECT)):
        mine, yours = (f[(f[list(SUBJECT)] == subject).all(axis=1)] for f in (a, b))
        if _tuples(mine, SITUATION) & _tuples(yours, SITUATION):
            shared = True
            continue
        alone = [c for c in SITUATION if not _tuples(mine, [c]) & _tuples(yours, [c])][:1]
        columns = alone or [c for c in SITUATION if len(_tuples(mine, [c]) | _tuples(yours, [c])) > 1]
        here, there = ([" with ".join(filter(None, map(str, t))) for t in _tuples(f, columns)] for f in (mine, yours))
        raise _incompatible(a, b, f"{' with '.join(columns)} of {' / '.join(subject)}", here, there)
    apart = by == BUDGET or (by and not set(a[READOUT]) & set(b[READOUT]))
    if shared and not apart:
        for key, (mine, yours) in _budgets(a, b).items():
            if mine and yours and not set(mine) & set(yours):
                raise _incompatible(a, b, key, mine, yours, ", or compare them with --by folder")


def _incompatible(a: pd.DataFrame, b: pd.DataFrame, what: str, mine: Any, yours: Any, or_: str = "") -> FcbenchError:
    def shown(values: Any) -> str:
        return " or ".join(sorted({str(v)[:40] or "not given" for v in values}))

    return FcbenchError(
        f"{a[FOLDER].iloc[0]} and {b[FOLDER].iloc[0]} cannot be compared: {what} is {shown(mine)} in one and "
        f"{shown(yours)} in the other; give folders of one suite, or one at a time{or_}."
    )


def _budgets(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    budgets: list[dict[str, list[str]]] = []
    for frame in (a, b):
        folder = Path(frame[FOLDER].iloc[0])
        runs = load_provenance(folder) if (folder / PROVENANCE).exists() else []
        options: dict[str, list[str]] = {}
        for run in runs:
            suite = run.get("suite", {})
            plain = {k: suite[k] for k in _BUDGET if k in suite}
            plain |= plain.pop("budget", None) or {}
            for key, value in plain.items():
                options.setdefault(key, []).append(str(value))
        budgets.append(options)
    return {key: (budgets[0][key], budgets[1][key]) for key in budgets[0] if key in budgets[1]}


def _tuples(df: pd.DataFrame, columns: Sequence[str]) -> set[tuple]:
    rows = df[list(columns)].drop_duplicates()
    return set(rows.itertuples(index=False, name=None))


def _each_once(df: pd.DataFrame) -> pd.DataFrame:
    """Drop failures of points that were later measured, and repetitions; refuse contradictions."""
    ok = df["status"] == OK
    key = [*SITUATION, *POINT, *(c for c in (variants.VARIANT, READOUT) if c in df)]
    point = [c for c in key if c != "metric"]
    keys = pd.MultiIndex.from_frame(df[point].astype(str))
    retried = ~ok & keys.isin(keys[ok])
    df = df[~retried]
    failed_twice = df.duplicated([*key, "status"]) & (df["status"] != OK)
    df = df[~failed_twice]
    ok = df["status"] == OK
    first = df[ok].groupby(key, sort=False, dropna=False)["value"].transform("first")
    differs = ~np.isclose(df.loc[ok, "value"], first, rtol=1e-9, equal_nan=True)
    if differs.any():
        row = df[ok][differs].iloc[0]
        what = " ".join(str(row[c]) for c in ("encoder", "task", "codec", "params"))
        raise FcbenchError(
            f"{what} was measured twice with different {row['metric']} (second: point {row['point']} in "
            f"{row.get(FOLDER, 'the rows')}): necks, heads or codecs were trained differently; give one suite's rows, "
            "or compare runs with --by."
        )
    return df[~(df.duplicated(key) & ok)]
