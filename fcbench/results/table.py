"""`rates.csv`: rows to disk and back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.core.errors import FcbenchError
from fcbench.core.files import _disk_errors
from fcbench.results.row import SCHEMA, RatePoint

RATES = "rates.csv"

_TYPES: dict[str, str] = {f.name: str(f.type) for f in fields(RatePoint)}
_DTYPES = {"int": "int64", "bool": "bool", "str": "object", "float | None": "float64"}
_DTYPES |= {"int | None": "Int64", "bool | None": "boolean"}


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
