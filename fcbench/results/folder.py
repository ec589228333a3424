"""A results folder: writing and reading rows.

    rates.csv          one `RatePoint` per row, the columns exactly its fields; a missing value is an empty cell
    samples.parquet/   one Parquet file per point: point, sample, n_bytes, stats and, where stated, log-likelihoods
    provenance.json    one record per run: packages, command line, machine, environment, time, suite

A point is added when it is measured: its samples first, then its rows at the end of `rates.csv`. A killed run leaves a
readable folder that holds all of the point or none of it. Replaced rows are removed when the folder is closed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock

from fcbench.core.errors import FcbenchError
from fcbench.core.files import append_durably, disk_errors, write_atomically
from fcbench.results import provenance, table
from fcbench.results.row import OK, SCHEMA, RatePoint
from fcbench.results.samples import SAMPLES, SampleTable, write_samples
from fcbench.results.table import HINT, RATES

PROVENANCE = "provenance.json"
PICTURES = "pictures.json"
"""A few test images as received at each point."""


class ResultsFolder:
    """A results folder open for writing, by one process at a time. Raises `FcbenchError`: the folder cannot be made,
    written or locked, or holds rows of another schema or damaged rows.

    >>> import tempfile
    >>> with ResultsFolder(tempfile.mkdtemp()) as folder:
    ...     folder.done("0123")
    False
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._run = ""  # the record that new rows belong to
        with disk_errors(self.path, HINT):
            (self.path / SAMPLES).mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / ".lock", timeout=0)
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise FcbenchError(
                    f"results folder {self.path} is in use by another process; wait for it or choose another --out."
                ) from None
        try:
            self._rows: dict[str, list[RatePoint]] = {}
            for row in table.load_points(self.path):
                self._rows.setdefault(row.point, []).append(row)
            with disk_errors(self.path, HINT):
                for left in self.path.rglob(".*.tmp"):
                    left.unlink()
                for left in self.path.glob(".streams-*"):  # of a killed run: the lock proves that no other run is alive
                    shutil.rmtree(left)
            self._compact()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> ResultsFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop replaced rows from the file, and release the lock."""
        try:
            self._compact()
        finally:
            self._lock.release()

    @property
    def points(self) -> list[RatePoint]:
        """All rows so far."""
        return [row for rows in self._rows.values() for row in rows]

    def done(self, point: str) -> bool:
        """Whether a point was measured; a failed one is not done and is tried again."""
        rows = self._rows.get(point, ())
        return bool(rows) and all(r.status == OK for r in rows)

    def append(self, rows: Sequence[RatePoint], samples: SampleTable | None) -> None:
        """Write the rows (one per metric) of one point and its samples; they replace older rows of the point.

        Rows without a run get the one that `add_provenance` last recorded. `samples`: None for a point that failed.
        Raises `FcbenchError`: rows of several points or another schema, samples that do not fit, a disk error (the
        folder is then unchanged).
        """
        point = _one_point(rows, samples)
        if samples is not None:
            write_samples(self.path, point, samples)
        rows = [replace(row, run=row.run or self._run) for row in rows]
        content = table.to_csv(rows)
        if self._rows:
            append_durably(self.path / RATES, content, HINT)
        else:
            write_atomically(self.path / RATES, table.header() + content, HINT)
        self._rows.pop(point, None)
        self._rows[point] = rows

    def add_provenance(self, suite: Mapping[str, Any]) -> None:
        """Add a record of this run to `provenance.json`. `suite`: what was requested, as plain JSON data. Raises
        `FcbenchError`: the existing file is damaged, or a disk error."""
        path = self.path / PROVENANCE
        contents = read_provenance(self.path) if path.exists() else {"runs": []}
        run = provenance.record(suite)
        contents |= {"schema": SCHEMA, "runs": [*contents["runs"], run]}
        write_atomically(path, json.dumps(contents, indent=1) + "\n", HINT)
        self._run = run["run"]

    def _compact(self) -> None:
        """Rewrite `rates.csv` without replaced rows, if it has any."""
        file = self.path / RATES
        content = table.header() + table.to_csv(self.points)
        with disk_errors(file, HINT):
            changed = bool(self._rows) and (not file.exists() or file.read_bytes() != content)
        if changed:
            write_atomically(file, content, HINT)


def load_provenance(path: Path | str) -> list[dict[str, Any]]:
    """Records of the runs that wrote a folder, oldest first. Raises `FcbenchError`: no such file, or a damaged one."""
    runs: list[dict[str, Any]] = read_provenance(path)["runs"]
    return runs


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Contents of `provenance.json`: ``runs`` and, once signed, ``signed``. Raises `FcbenchError`: no such file, or a
    damaged one."""
    file = Path(path) / PROVENANCE
    try:
        contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        contents["runs"] = [dict(run) for run in contents["runs"]]
        return contents
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FcbenchError(f"cannot read {file} ({error}); delete it to start a new one.") from None


def _one_point(rows: Sequence[RatePoint], samples: SampleTable | None) -> str:
    """The key that all rows share. Raises `FcbenchError`: the rows are not those of one point."""
    keys = sorted({r.point for r in rows})
    if len(keys) != 1:
        raise FcbenchError(f"got rows of {len(keys)} points ({', '.join(keys)}); append one point at a time.")
    if not table.KEY.fullmatch(keys[0]):
        raise FcbenchError(f"got the point key {keys[0]!r}; need letters, digits, '-' and '_' (it names a file).")
    wrong = {r.schema for r in rows} - {SCHEMA}
    if wrong:
        raise FcbenchError(f"got a row of schema {wrong.pop()}; this version writes schema {SCHEMA}.")
    if samples is None and any(r.status == OK for r in rows):
        raise FcbenchError(f"got point {keys[0]!r} with status ok but without samples; give them.")
    return keys[0]
