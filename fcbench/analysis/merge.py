"""Results folders of several people or machines joined into one, as far as their rows are comparable.

The first folder sets the standard. The rows of a situation (`situations.SITUATION`) of a later folder are taken or
refused together: the data set's revision and how its metrics are counted must be the standard's; if the standard holds
the same situation, training budgets must be equal, values lie in the standard's intervals and rates differ by at most
`MAX_RATE_DIFFERENCE`. Points that the standard already holds are left out; one that failed there gives way to its
measurement.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.analysis.situations import POINT, SITUATION
from fcbench.core.errors import FcbenchError
from fcbench.core.files import disk_errors, write_atomically
from fcbench.results import table
from fcbench.results.folder import PICTURES, PROVENANCE, load_provenance
from fcbench.results.row import OK, SCHEMA
from fcbench.results.samples import SAMPLES, has_samples, load_samples, write_samples

HINT = "choose another -o"
METRIC_PACKAGES = {"cider": "pycocoevalcap", "bleu4": "pycocoevalcap"}  # Metrics that another package counts
_COUNTED = ("protocol", "unit", "higher_is_better")
MAX_RATE_DIFFERENCE = 0.05  # Relative difference of an operating point's rate on two machines
_CODEC_BUDGET = ("codec_steps", "codec_batch", "codec_rate")
_BUDGET = ("n_train", "width", "task_steps", "task_batch", "task_rate", "tolerance")
_SAME = [*SITUATION, *(c for c in POINT if c != "metric")]


@dataclass(frozen=True, slots=True)
class Merged:
    """Outcome of a merge. `taken, already`: points of each folder that were taken, or were already there."""

    rows: pd.DataFrame  # the rows taken, with the number of its folder in the column ``source``
    taken: tuple[int, ...]
    already: tuple[int, ...]
    refused: tuple[str, ...]  # one line per incomparable situation: folder, situation, reason


def merge(paths: Sequence[Path]) -> Merged:
    """Join the rows of results folders. Raises `FcbenchError`: fewer than two folders; also whatever
    `fcbench.results.table.load` raises."""
    if len(paths) < 2:
        raise FcbenchError(f"got {len(paths)} results folder to merge; give two or more.")
    kept = table.load(paths[0]).assign(source=0)
    already, refused = [0], list[str]()
    for number, path in enumerate(paths[1:], 1):
        rows = table.load(path).assign(source=number)
        fit = []
        for _, one in rows.groupby(list(SITUATION), sort=False, dropna=False):
            if reason := next(_reasons(kept, one), ""):
                first = one.iloc[0]
                what = " / ".join((first["dataset"], first["encoder"], first["task"]))
                refused.append(f"{path}: {what}, {one['point'].nunique()} points: {reason}")
            else:
                fit.append(one)
        new = pd.concat(fit) if fit else rows.iloc[:0]
        measured = new.loc[new["status"] == OK, "point"]
        kept = kept[(kept["status"] == OK) | ~kept["point"].isin(measured)]
        there = _keys(new).isin(_keys(kept[kept["status"] == OK])) | new["point"].isin(kept["point"])
        already.append(new.loc[there, "point"].nunique())
        kept = pd.concat([kept, new[~there]], ignore_index=True)
    taken = tuple(kept.loc[kept["source"] == number, "point"].nunique() for number in range(len(paths)))
    return Merged(kept, taken, tuple(already), tuple(refused))


def write(merged: Merged, paths: Sequence[Path], out: Path) -> None:
    """Write the merged rows as a results folder, with samples, pictures and the records of all runs. Raises
    `FcbenchError`: the folder already holds results, or a disk error."""
    if (out / table.RATES).exists():
        raise FcbenchError(f"{out} already holds results: {HINT}.")
    with disk_errors(out, HINT):
        (out / SAMPLES).mkdir(parents=True, exist_ok=True)
        for source, point in merged.rows[["source", "point"]].drop_duplicates().itertuples(index=False):
            if has_samples(paths[source], point):
                write_samples(out, point, load_samples(paths[source], point), HINT)
    runs = [run for path in paths if (path / PROVENANCE).exists() for run in load_provenance(path)]
    write_atomically(out / PROVENANCE, json.dumps({"schema": SCHEMA, "runs": runs}, indent=1) + "\n", HINT)
    if files := [path / PICTURES for path in paths if (path / PICTURES).exists()]:
        write_atomically(out / PICTURES, json.dumps(_joined(files), separators=(",", ":")), HINT)
    write_atomically(out / table.RATES, table.header() + table.to_csv(table.to_points(merged.rows)), HINT)


def _joined(files: Sequence[Path]) -> dict[str, Any]:
    """Pictures of several folders; of a point that several have, the first. Raises `FcbenchError`: a damaged file."""
    images, points, seen = dict[str, str](), list[dict[str, Any]](), set[str]()
    for file in files:
        try:
            one = json.loads(file.read_bytes())
            images |= one["images"]
            points += [point for point in one["points"] if seen.isdisjoint(point["keys"].values())]
            seen.update(*(point["keys"].values() for point in one["points"]))
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise FcbenchError(f"{file} is damaged ({type(error).__name__}: {error}); delete it.") from None
    return {"images": images, "points": points}


def _keys(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(list(rows[_SAME].astype(str).itertuples(index=False, name=None)), rows.index, dtype=object)


def _reasons(kept: pd.DataFrame, one: pd.DataFrame) -> Iterator[str]:
    first = one.iloc[0]
    same_data = kept[(kept["dataset"] == first["dataset"]) & (kept["image_size"] == first["image_size"])]
    yield from _differs("dataset_revision", same_data["dataset_revision"], one["dataset_revision"])
    for metric, rows in one[one["status"] == OK].groupby("metric", sort=False):
        beside = same_data[(same_data["task"] == first["task"]) & (same_data["metric"] == metric)]
        for column in _COUNTED:
            yield from _differs(f"{column} of {metric}", beside[column], rows[column])
        if metric in METRIC_PACKAGES:
            package = METRIC_PACKAGES[str(metric)]
            yield from _differs(f"{package} that counts {metric}", *(_versions(r, package) for r in (beside, rows)))
    same = kept[(kept[list(SITUATION)] == first[list(SITUATION)]).all(axis=1)]
    for column in _BUDGET:
        yield from _differs(column, same[column].dropna(), one[column].dropna())
    for codec, rows in one.groupby("codec", sort=False):
        for column in _CODEC_BUDGET:
            beside = same.loc[same["codec"] == codec, column]
            yield from _differs(f"{column} of {codec}", beside.dropna(), rows[column].dropna())
    yield from _measured_twice(same, one)


def _differs(what: str, mine: pd.Series, yours: pd.Series) -> Iterator[str]:
    if len(mine) and len(yours) and not set(mine) & set(yours):
        yield f"{what} is {_shown(yours)}, beside {_shown(mine)}"


def _shown(values: pd.Series) -> str:
    return " or ".join(sorted({str(v)[:40] or "empty" for v in values}))


def _versions(rows: pd.DataFrame, package: str) -> pd.Series:
    versions: list[Any] = [json.loads(cell or "{}").get(package) for cell in rows["versions"]]
    return pd.Series([v for v in versions if v], dtype=object)


def _measured_twice(mine: pd.DataFrame, yours: pd.DataFrame) -> Iterator[str]:
    """A reason for each operating point or end whose accuracy or rate differs: its training was different."""
    ok = [rows[(rows["status"] == OK) & rows["primary"]] for rows in (mine, yours)]
    for p in ok[0].merge(ok[1], on=list(POINT), suffixes=("", "_other")).itertuples():
        if p.value_other < p.ci_low or p.value_other > p.ci_high:
            yield (
                f"{p.codec} {p.params} has {p.metric} {p.value_other:.4g}, beside {p.value:.4g} "
                f"[{p.ci_low:.4g}, {p.ci_high:.4g}]: something was trained differently"
            )
        if abs(p.bpp_other - p.bpp) > MAX_RATE_DIFFERENCE * p.bpp:
            yield f"{p.codec} {p.params} has {p.bpp_other:.4g} bpp, beside {p.bpp:.4g}: it was trained differently"
