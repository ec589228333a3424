"""A results folder: rows to disk and back.

    rates.csv          one `RatePoint` a row, the columns exactly its fields; a missing value is an empty cell
    samples.parquet/   one Parquet file a point: point, sample, n_bytes, stats; where the head states it log_likelihood,
                       at the ceiling null_log_likelihood; the folder is one Parquet data set
    provenance.json    one record a run: versions, command line, machine, time, suite

A finished point is written whole: its samples first, then `rates.csv` anew beside the old one and put in its place.
So a killed run leaves a readable folder that lacks the point or has all of it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import pyarrow.parquet as pq

from fcbench.core.errors import FcbenchError
from fcbench.core.files import _disk_errors, _replace
from fcbench.results import provenance
from fcbench.results.row import OK, SCHEMA, RatePoint
from fcbench.results.samples import SAMPLES, SampleTable, _sample_table
from fcbench.results.table import RATES, _to_csv, load_points

PROVENANCE = "provenance.json"


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
