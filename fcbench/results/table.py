"""`rates.csv`: writing and reading rows."""

import csv
import io
import logging
import re
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.core.errors import FcbenchError
from fcbench.core.files import appended, disk_errors
from fcbench.results import row
from fcbench.results.row import READ_SCHEMAS, SCHEMA, RatePoint

RATES = "rates.csv"
HINT = "choose another --out"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # What a point may be called: it names files

log = logging.getLogger(__name__)

_DTYPES: dict[Any, str] = {int: "int64", bool: "bool", str: "object"}
_NULLABLE: dict[Any, str] = {float | None: "float64", int | None: "Int64", bool | None: "boolean"}
COLUMNS: dict[str, Any] = {name: (_DTYPES | _NULLABLE)[c.type] for name, c in row.COLUMNS.items()}
"""Column -> its type in the table that `load` returns."""
_MISSING = {name: [""] for name, c in row.COLUMNS.items() if c.type in _NULLABLE}
_OF_SCHEMA = {n: [name for name, c in row.COLUMNS.items() if c.since <= n] for n in READ_SCHEMAS}
"""Columns of a file, by schema."""
_values = attrgetter(*COLUMNS)


def load(path: Path | str) -> pd.DataFrame:
    """Rows of a results folder as a table: int64, Int64 and boolean (nullable), float64 with NaN, str.

    Columns that an older schema lacks are missing values, or empty texts. A point that a killed run did not write to
    its end, or whose last line is cut off, is left out with a warning. Raises `FcbenchError`: no `rates.csv`, other
    columns or schema, a damaged or unreadable file.
    """
    file = Path(path) / RATES
    if not file.exists():
        raise FcbenchError(f"no {RATES} in {path}; give a folder that `fcbench run --out` wrote.")
    with disk_errors(file, HINT):
        raw = file.read_bytes()
    whole = whole_points(raw)
    if len(whole) < len(raw):
        log.warning("%s: its last point is cut off and left out; run again to measure it", file)
    return _last_of_each_point(_parsed(file, whole))


def load_points(path: Path | str) -> list[RatePoint]:
    """Rows of a results folder as written; empty if `rates.csv` does not exist yet. Raises `FcbenchError`: see
    `load`."""
    return to_points(load(path)) if (Path(path) / RATES).exists() else []


def to_points(frame: pd.DataFrame) -> list[RatePoint]:
    """Rows of a table that `load` returned."""
    frame = frame.astype(object)
    columns = frame.where(frame.notna(), None)
    return [RatePoint(**dict(zip(COLUMNS, cells))) for cells in zip(*(columns[name] for name in COLUMNS))]


def header() -> bytes:
    """First line of `rates.csv`."""
    return _lines([COLUMNS])


def to_csv(points: Sequence[RatePoint]) -> bytes:
    """Lines of `rates.csv`, one per rate point."""
    # a value unequal to itself is NaN: missing
    return _lines([[None if v != v else v for v in _values(p)] for p in points])


def whole_points(raw: bytes) -> bytes:
    """Content of `rates.csv` without a point that a killed run was appending, and without a last line that is cut off
    otherwise (by an older version, or a copy) and the other rows of its point."""
    raw = appended(raw)
    *lines, cut = raw.split(b"\n")
    if not cut:
        return raw
    # a line that is cut in its point's own cell may belong to the point before it: that one goes, too
    point = _point_cell(cut) or (_point_cell(lines[-1]) if lines else b"")
    while len(lines) > 1 and _point_cell(lines[-1]) == point:
        lines.pop()
    return b"".join(line + b"\n" for line in lines)


def _point_cell(line: bytes) -> bytes:
    cells = line.split(b",", 2)
    return cells[1] if len(cells) == 3 else b""


def _lines(rows: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    # all text is quoted: otherwise a lone carriage return (a progress bar in a reason) would end a line
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return text.getvalue().encode()


def _parsed(file: Path, raw: bytes) -> pd.DataFrame:
    """Rows with the columns of this version's schema. Raises `FcbenchError`: no readable schema fits."""
    try:
        lines = csv.reader(io.StringIO(raw.decode(), newline=""), strict=True)
        columns = next(lines, [])
        _check_columns(file, columns)
        for cells in lines:
            if len(cells) != len(columns):
                raise ValueError(f"line {lines.line_num} has {len(cells)} cells, expected {len(columns)}")
        frame = pd.read_csv(
            io.BytesIO(raw),
            dtype={name: COLUMNS[name] for name in columns},
            na_values=_MISSING,
            keep_default_na=False,
            float_precision="round_trip",
        )
    except (ValueError, csv.Error) as error:
        reason = str(error).splitlines()[0].removesuffix(".")
        raise FcbenchError(f"{file} is damaged: {reason}; repair it or {HINT}.") from None
    other = set(frame["schema"]) - set(READ_SCHEMAS)
    if other:
        read = " and ".join(map(str, READ_SCHEMAS))
        raise FcbenchError(f"{file} has schema {other.pop()}, this version reads {read}; {HINT}.")
    if wrong := [point for point in frame["point"].unique() if not KEY.fullmatch(str(point))]:
        raise FcbenchError(f"{file} is damaged: a point cannot be called {wrong[0]!r:.40}; repair it or {HINT}.")
    return _completed(frame)


def _completed(frame: pd.DataFrame) -> pd.DataFrame:
    new = {
        name: pd.Series(None if name in _MISSING else "", index=frame.index, dtype=dtype)
        for name, dtype in COLUMNS.items()
        if name not in frame
    }
    return frame.assign(**new)[list(COLUMNS)] if new else frame


def _check_columns(file: Path, columns: list[str]) -> None:
    if columns in _OF_SCHEMA.values():
        return
    expected = _OF_SCHEMA[SCHEMA]
    missing = ", ".join(c for c in expected if c not in columns) or "none"
    unknown = ", ".join(c for c in columns if c not in expected) or "none"
    raise FcbenchError(
        f"{file} has other columns than this version writes (missing: {missing}; unknown: {unknown}); {HINT}."
    )


def _last_of_each_point(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each point that were written last: a killed run leaves replaced rows in the file."""
    keys = frame[["point", "status"]]
    written = (keys != keys.shift()).any(axis=1).cumsum()
    last = written.groupby(frame["point"]).transform("max")
    return frame[written == last].reset_index(drop=True)
