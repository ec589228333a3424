"""A results folder: rows to disk and back.

    rates.csv          one `RatePoint` a row, the columns exactly its fields; a missing value is an empty cell
    samples.parquet/   one Parquet file a point: point, sample, n_bytes, stats; where the head states it log_likelihood,
                       at the ceiling null_log_likelihood; the folder is one Parquet data set
    provenance.json    one record a run: versions, command line, machine, time, suite

A finished point is written whole: its samples first, then `rates.csv` anew beside the old one and put in its place.
So a killed run leaves a readable folder that lacks the point or has all of it.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fcbench import provenance
from fcbench.ratepoint import RatePoint
from fcbench.types import FcbenchError

SCHEMA = 2
"""Version of the columns of `rates.csv`: goes into `RatePoint.schema`."""

OK = "ok"
"""`RatePoint.status` of a point that was measured."""

RATES, SAMPLES, PROVENANCE = "rates.csv", "samples.parquet", "provenance.json"

LIKELIHOODS = "log_likelihood", "null_log_likelihood"
"""Columns of `SampleTable` that not every point has."""

_TYPES: dict[str, str] = {f.name: str(f.type) for f in fields(RatePoint)}
_DTYPES = {"int": "int64", "bool": "bool", "str": "object", "float | None": "float64"}
_DTYPES |= {"int | None": "Int64", "bool | None": "boolean"}


@dataclass(frozen=True, slots=True)
class SampleTable:
    """What is kept of each sample of a point.

    Attributes:
        ids: [N] sample ids.
        n_bytes: [N] size of each sample's record, None where nothing was coded [bytes].
        stats: [N, S] float64 additive statistics of the task.
        log_likelihood: [N] nats, of the target, as the head states it on what was decoded; None where it states none.
        null_log_likelihood: [N] nats, of the null model (see `fcbench.information`); None but at the uncoded ceiling.
    """

    ids: Sequence[str]
    n_bytes: Sequence[int | None]
    stats: np.ndarray
    log_likelihood: np.ndarray | None = None
    null_log_likelihood: np.ndarray | None = None


class ResultsFolder:
    """A results folder open for writing, by one process at a time.

    >>> import tempfile
    >>> with ResultsFolder(tempfile.mkdtemp()) as folder:
    ...     folder.done("0123")
    False

    Raises:
        FcbenchError: the folder cannot be made, written or locked, or holds rows of another schema or damaged rows.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with _disk_errors(self.path):
            (self.path / SAMPLES).mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / ".lock", timeout=0)
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise FcbenchError(
                    f"results folder {self.path} is in use by another process; wait for it or choose another --out."
                ) from None
        try:
            self._points = load_points(self.path)
            with _disk_errors(self.path):
                for left in self.path.rglob(".*.tmp"):
                    left.unlink()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultsFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free."""
        self._lock.release()

    @property
    def points(self) -> list[RatePoint]:
        """All rows so far."""
        return list(self._points)

    def done(self, point: str) -> bool:
        """Whether a point was measured; a failed one is not done and is tried again."""
        rows = [r for r in self._points if r.point == point]
        return bool(rows) and all(r.status == OK for r in rows)

    def append(self, rows: Sequence[RatePoint], samples: SampleTable | None) -> None:
        """Write the rows (one a metric) of one point and its samples; they replace older rows of the point.

        Args:
            samples: None for a point that failed.

        Raises:
            FcbenchError: rows of several points or another schema, samples that do not fit, a disk error (the
                folder then is as it was).
        """
        point = _one_point(rows, samples)
        if samples is not None:
            table = _sample_table(point, samples)
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="zstd")
            _replace(self.path / SAMPLES / f"{point}.parquet", buffer.getvalue())
        points = [r for r in self._points if r.point != point] + list(rows)
        _replace(self.path / RATES, _to_csv(points).encode())
        self._points = points

    def add_provenance(self, suite: Mapping[str, Any]) -> None:
        """Record this run: one record more in `provenance.json`.

        Args:
            suite: what was asked for; plain JSON data.

        Raises:
            FcbenchError: the file there is damaged, or a disk error.
        """
        path = self.path / PROVENANCE
        runs = load_provenance(self.path) if path.exists() else []
        record = {"schema": SCHEMA, "runs": [*runs, provenance.record(suite)]}
        _replace(path, (json.dumps(record, indent=1) + "\n").encode())


# ------------------------------------------------------------------------------------------ reading
def load_points(path: Path | str) -> list[RatePoint]:
    """Rows of a results folder, as they were written; none where `rates.csv` does not exist yet.

    Raises:
        FcbenchError: other columns or schema, a damaged or unreadable file.
    """
    file = Path(path) / RATES
    if not file.exists():
        return []
    with _disk_errors(file):
        raw = file.read_bytes()
    text = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", newline="")
    lines = csv.reader(text, strict=True)
    try:
        _check_header(file, next(lines, []))
        points = [_from_cells(file, lines.line_num, cells) for cells in lines]
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(file, lines.line_num, str(error)) from None
    if not raw.endswith(b"\n"):
        raise _damaged(file, lines.line_num, "the last line is cut off")
    return points


def load(path: Path | str) -> pd.DataFrame:
    """Rows of a results folder as a table: int64, Int64 and boolean (nullable), float64 with NaN, str.

    Raises:
        FcbenchError: no `rates.csv` there, or what `load_points` raises.
    """
    if not (Path(path) / RATES).exists():
        raise FcbenchError(f"no {RATES} in {path}; give a folder that `fcbench run --out` wrote.")
    return to_frame(load_points(path))


def to_frame(points: Sequence[RatePoint]) -> pd.DataFrame:
    """Rate points as a table, one a row, with the dtypes of `load`."""
    return pd.DataFrame(
        {name: pd.Series([getattr(p, name) for p in points], dtype=_DTYPES[kind]) for name, kind in _TYPES.items()}
    )


def load_samples(path: Path | str, point: str) -> SampleTable:
    """Samples of one point, in the order in which they were written.

    Raises:
        FcbenchError: none kept for this point, or a damaged file.
    """
    file = Path(path) / SAMPLES / f"{point}.parquet"
    if not file.exists():
        raise FcbenchError(f"no samples of point {point!r} in {path}; it failed or was never run.")
    try:
        table = pq.read_table(file, partitioning=None)
        ids, n_bytes = (table.column(c).to_pylist() for c in ("sample", "n_bytes"))
        stats = table.column("stats").combine_chunks().flatten().to_numpy()
        stated = {c: table.column(c).to_numpy() for c in LIKELIHOODS if c in table.schema.names}
        return SampleTable(ids, n_bytes, stats.reshape(len(ids), -1), **stated)
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FcbenchError(
            f"{file} is damaged ({reason}); delete it and its rows in {RATES}, then run again."
        ) from None


def load_provenance(path: Path | str) -> list[dict[str, Any]]:
    """Records of the runs that wrote a folder, oldest first.

    Raises:
        FcbenchError: no such file or a damaged one.
    """
    file = Path(path) / PROVENANCE
    try:
        return list(json.loads(file.read_text())["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FcbenchError(f"cannot read {file} ({error}); delete it to start a new one.") from None


# ------------------------------------------------------------------------------------------ writing
def _one_point(rows: Sequence[RatePoint], samples: SampleTable | None) -> str:
    """The key that all rows share. Raises `FcbenchError` for rows that do not make up one point."""
    keys = sorted({r.point for r in rows})
    if len(keys) != 1:
        raise FcbenchError(f"got rows of {len(keys)} points ({', '.join(keys)}); append one point at a time.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", keys[0]):
        raise FcbenchError(f"got the point key {keys[0]!r}; need letters, digits, '-' and '_' (it names a file).")
    wrong = {r.schema for r in rows} - {SCHEMA}
    if wrong:
        raise FcbenchError(f"got a row of schema {wrong.pop()}; this version writes schema {SCHEMA}.")
    if samples is None and any(r.status == OK for r in rows):
        raise FcbenchError(f"got point {keys[0]!r} with status ok but without samples; give them.")
    return keys[0]


def _sample_table(point: str, samples: SampleTable) -> pa.Table:
    stats = np.asarray(samples.stats, dtype=np.float64)
    n = len(samples.ids)
    if n == 0 or stats.ndim != 2 or len(stats) != n or len(samples.n_bytes) != n:
        raise FcbenchError(
            f"got {n} sample ids, {len(samples.n_bytes)} sizes and statistics {list(stats.shape)}; need N, N, [N, S]."
        )
    offsets = np.arange(n + 1, dtype=np.int32) * stats.shape[1]
    columns = {
        "point": pa.array([point] * n, pa.string()),
        "sample": pa.array(list(samples.ids), pa.string()),
        "n_bytes": pa.array(list(samples.n_bytes), pa.int64()),
        "stats": pa.ListArray.from_arrays(pa.array(offsets), stats.ravel()),
    }
    for name in LIKELIHOODS:
        values = getattr(samples, name)
        if values is None:
            continue
        if np.shape(values) != (n,) or not np.isfinite(values).all():
            raise FcbenchError(
                f"got {name} of shape {list(np.shape(values))} for {n} samples of point {point!r}; "
                "need one finite number a sample."
            )
        columns[name] = pa.array(values, pa.float64())
    return pa.table(columns)


def _to_csv(points: Sequence[RatePoint]) -> str:
    text = io.StringIO(newline="")
    # all text quoted: else a lone carriage return (a progress bar in a reason) would end a line
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_TYPES)
    writer.writerows([_to_cell(getattr(p, name)) for name in _TYPES] for p in points)
    return text.getvalue()


def _to_cell(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_cells(file: Path, line: int, cells: list[str]) -> RatePoint:
    if len(cells) != len(_TYPES):
        raise _damaged(file, line, f"{len(cells)} cells, not {len(_TYPES)}")
    if cells[0] != str(SCHEMA):
        raise FcbenchError(f"{file} has schema {cells[0]!r}, this version reads {SCHEMA}; choose another --out.")
    values = {}
    for (name, kind), cell in zip(_TYPES.items(), cells):
        try:
            values[name] = _parse(kind, cell)
        except ValueError:
            raise _damaged(file, line, f"{name} is {cell!r}, not {kind}") from None
    return RatePoint(**values)


def _parse(kind: str, cell: str) -> Any:
    if kind == "str":
        return cell
    if kind.endswith(" | None") and cell == "":
        return None
    base = kind.removesuffix(" | None")
    if base == "bool":
        if cell not in ("True", "False"):
            raise ValueError(cell)
        return cell == "True"
    return int(cell) if base == "int" else float(cell)


def _check_header(file: Path, header: list[str]) -> None:
    expected = list(_TYPES)
    if header == expected:
        return
    missing = [c for c in expected if c not in header]
    unknown = [c for c in header if c not in expected]
    raise FcbenchError(
        f"{file} has other columns than this version writes (missing: {', '.join(missing) or 'none'}; "
        f"unknown: {', '.join(unknown) or 'none'}); choose another --out."
    )


def _damaged(file: Path, line: int, what: str) -> FcbenchError:
    return FcbenchError(f"{file} is damaged at line {line}: {what}; repair that line or choose another --out.")


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside the old one, to the disk, then into its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _disk_errors(path):
        try:
            with open(temporary, "wb") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space or choose another --out; a new run resumes here"
        else:
            advice = "choose a folder that can be written with --out"
        raise FcbenchError(f"cannot use {path}: {error.strerror or error}; {advice}.") from error
