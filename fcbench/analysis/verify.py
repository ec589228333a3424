"""Verification of a results folder: rows that add up, and samples that give their values again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fcbench.analysis.situations import MetricValues, metric_values_of
from fcbench.core import rates
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.core.rules import shown
from fcbench.results import intervals, table
from fcbench.results.checks import Checks, grouped, parts_of, sending
from fcbench.results.folder import PROVENANCE, load_provenance
from fcbench.results.row import COLUMNS, OK, RatePoint
from fcbench.results.samples import SampleTable, load_samples, sample_files

OF_METRIC = ("metric", "value", "ci_low", "ci_high", "unit", "protocol", "higher_is_better", "primary")
"""Columns in which the rows of a point may differ."""
OF_FILE = (
    *("n_samples", "n_px", "n_points", "n_bytes", "parts", "bpp_estimated", "feature_mse"),
    *("checkpoint_sha256", "checkpoint_bytes"),
)
"""Columns in which points that read the same file may not."""


def verify(folder: Path, with_intervals: bool = True) -> Checks:
    """Check rows and samples. `with_intervals`: draw the bootstrap of every value again, which takes most of the time.
    Raises `FcbenchError`: `rates.csv` or `provenance.json` is missing, damaged or of an unreadable schema."""
    rows, checks = table.load(folder), Checks()
    if rows.empty:
        raise FcbenchError(f"no rows in {folder}; run `fcbench run` first.")
    _provenance(folder, rows, checks)
    points = grouped(table.to_points(rows), lambda row: row.point)
    measured = [point for point in points if point[0].status == OK]
    for point in points:
        _agreement(point, (c for c in COLUMNS if c not in OF_METRIC), "other rows of its point", checks)
        if point[0].status != OK:
            checks.fault(f"failed: {point[0].status}", row=point[0])
    for together in grouped((point[0] for point in measured), sending):
        _agreement(together, OF_FILE, "rows of other tasks, which read the same file", checks)
    for first, *_ in measured:
        try:
            _rate(first, checks)
        except FcbenchError as error:
            checks.fault(f"its rates cannot be computed: {error}", row=first)
    for row in (row for point in measured for row in point):
        if row.value is None:
            checks.fault(f"{row.metric} is empty", row=row)
    _samples(folder, rows["point"], measured, checks, with_intervals)
    return checks


def _provenance(folder: Path, rows: pd.DataFrame, checks: Checks) -> None:
    runs = {r.get("run") for r in load_provenance(folder)} if (folder / PROVENANCE).exists() else set()
    for run in sorted(set(rows["run"]) - runs):
        n = rows.loc[rows["run"] == run, "point"].nunique()
        missing = (
            f"{n} points are of run {run!r}, which {PROVENANCE} does not hold" if run else f"{n} points name no run"
        )
        checks.fault(missing, PROVENANCE)
    for what, unknown in (
        ("no commit", rows["commit"] == ""),
        ("a package that differed from its commit", rows["commit"].str.endswith("-dirty")),
        ("no sha256 of the encoder's weights", rows["weights_sha256"] == ""),
    ):
        if unknown.any():
            checks.fault(f"{rows.loc[unknown, 'point'].nunique()} points name {what}", PROVENANCE)


def _agreement(rows: Sequence[RatePoint], columns: Iterable[str], others: str, checks: Checks) -> None:
    """Find the row of a group that has another cell than most. `others`: what the group is."""
    for column in columns:
        cells = [getattr(row, column) for row in rows]
        most = Counter(cells).most_common(1)[0][0]
        for row, cell in zip(rows, cells):
            if cell != most:
                checks.fault(f"{column} is {_shown(cell)}, but {_shown(most)} in {others}", row=row)
                break


def _shown(cell: object) -> str:
    return "empty" if cell in (None, "") else shown(cell)


def _rate(row: RatePoint, checks: Checks) -> None:
    """Compare the rates of a point with its bytes, and its bytes with their parts."""
    if row.kind in (Kind.CEILING, Kind.FLOOR):
        uncoded = rates.uncoded_bytes(row.n_points) if row.kind == Kind.CEILING else 0
        checks.compare(row, "n_bytes", uncoded, "uncoded features have" if uncoded else "nothing is sent:")
    n_bytes, parts = int(row.n_bytes or 0), parts_of(row)
    if parts and sum(parts.values()) != n_bytes:
        checks.fault(f"n_bytes is {n_bytes}, but its parts are {sum(parts.values())} bytes", row=row)
    gives = f"{n_bytes} bytes give"
    checks.compare(row, "bpp", rates.bpp(n_bytes, row.n_px), gives)
    checks.compare(row, "bpfp", rates.bpfp(n_bytes, row.n_points), gives)
    checks.compare(row, "bytes_per_sample", rates.bytes_per_sample(n_bytes, row.n_samples), gives)
    if parts:
        checks.compare(row, "bpp_content", rates.bpp_content(n_bytes, parts, row.n_px), "its parts give")
    if row.bpp_estimated is not None:
        alarm = rates.rate_alarm(n_bytes, row.bpp_estimated * row.n_px, row.n_samples)
        checks.compare(row, "rate_alarm", alarm, "coded and estimated rates give")
    checks.done["rates"] += 1


def _samples(
    folder: Path, points: Iterable[str], measured: Sequence[Sequence[RatePoint]], checks: Checks, with_intervals: bool
) -> None:
    files = sample_files(folder)
    if not files:
        checks.left["values and intervals (no samples kept)"] += sum(map(len, measured))
        return
    for point in sorted(files.keys() - set(points)):
        what = f"samples of point {point}, which has no row: it was deleted, or its run was killed"
        checks.fault(what, _below(folder, files[point]))
    for lines in measured:
        first, point, task = lines[0], lines[0].point, lines[0].task
        if point not in files:
            checks.fault("no samples", row=first)
            continue
        file = _below(folder, files[point])
        try:
            samples, values_of = load_samples(folder, point), metric_values_of(task)
            for fault in _sizes(first, samples):
                checks.fault(fault, file, first)
            if values_of is None:
                checks.left[f"values and intervals (no plug-in {task!r} here)"] += len(lines)
                continue
            _values(lines, file, samples, values_of, checks, with_intervals)
        except (FcbenchError, IndexError, ValueError) as error:
            checks.fault(f"its samples cannot be read: {error}", file, first)


def _below(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _sizes(row: RatePoint, samples: SampleTable) -> Iterator[str]:
    """Faults of the sizes of a point's samples."""
    if len(samples.ids) != row.n_samples or len(set(samples.ids)) != len(samples.ids):
        yield f"{len(set(samples.ids))} different samples, but its rows say {row.n_samples}"
    sizes = [n for n in samples.n_bytes if n is not None]
    rest, container = (row.n_bytes or 0) - sum(sizes), parts_of(row).get(rates.CONTAINER)
    if rest < 0 or (container is not None and rest != container):
        claimed = f" and a container of {container}" if container is not None else ""
        yield f"samples of {sum(sizes)} bytes, but its row says {row.n_bytes}{claimed}"


def _values(
    rows: Sequence[RatePoint],
    file: str,
    samples: SampleTable,
    values_of: MetricValues,
    checks: Checks,
    with_intervals: bool,
) -> None:
    """Compare all rows of a point with its samples."""
    values = values_of(samples.stats, np.ones((1, len(samples.stats))))
    drawn = intervals.resampled(samples.stats, values_of) if with_intervals else {}
    if samples.feature_error is not None:
        checks.compare(rows[0], "feature_mse", float(samples.feature_error.mean()), f"its samples in {file} give")
    for metric in sorted(values.keys() - {row.metric for row in rows}):
        checks.fault(f"no row of its {metric}", row=rows[0])
    for row in rows:
        because = f"for {row.metric} its samples in {file} give"
        if row.metric not in values:
            checks.fault(f"its samples in {file} give no {row.metric}", row=row)
            continue
        checks.compare(row, "value", float(values[row.metric][0]), because)
        checks.done["values"] += 1
        if with_intervals:
            for column, end in zip(("ci_low", "ci_high"), intervals.interval(drawn[row.metric])):
                checks.compare(row, column, end, because)
            checks.done["intervals"] += 1
