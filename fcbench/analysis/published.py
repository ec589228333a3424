"""Curves that others published, beside measured ones: anchors that are drawn dashed and marked "not measured here".

Two forms are read:

- ``.csv``: one point per line, with the columns `COLUMNS`. ``rate_unit`` is bpp, bpfp, bytes_per_sample or
  bpp_content; an empty ``task`` matches every task with the metric; ``source`` says where the numbers are from. Other
  columns are ignored.
- ``.json``: CompressAI's results, ``{"name": ..., "description": ..., "results": {"bpp": [...], METRIC: [...]}}``.

Whoever provides the file vouches for it: nothing here checks that its data and protocol match the rows.
"""

import csv
import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fcbench.analysis.situations import SENT, SITUATION
from fcbench.analysis.variants import FOLDER, READOUT
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.core.files import disk_errors
from fcbench.core.rates import UNITS
from fcbench.results.row import OK

COLUMNS = ("label", "rate", "rate_unit", "value", "metric", "task", "source")  # Of a CSV file
SOURCE = "source"  # Column that `add` adds: where the numbers of a published row are from
MARK = "published, not measured here"

_SHARED = (
    *(*SITUATION, "n_points", "seed", "metric", "unit", "higher_is_better", "primary"),
    *("weights_origin", "status", "schema", "suite", FOLDER, READOUT),
)
"""Columns that a published row shares with the measured ones that it stands beside."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedCurve:
    """A curve as published."""

    label: str
    task: str  # empty for every task with the metric
    metric: str
    rate_unit: str  # a column of rates.csv
    source: str
    points: tuple[tuple[float, float], ...]  # (rate, value), in the order of the file


def read(path: Path) -> list[PublishedCurve]:
    """The curves of a file. Raises `FcbenchError`: another suffix or form, a value that is not a number, a rate not
    above 0, or no curve."""
    readers = {".csv": _of_csv, ".json": _of_compressai}
    if path.suffix.lower() not in readers:
        raise FcbenchError(f"cannot read published curves from {path.name!r}; give FILE.csv or CompressAI's FILE.json.")
    with disk_errors(path, "give another --published"):
        raw = path.read_bytes()
    try:
        curves = list(readers[path.suffix.lower()](raw.decode("utf-8-sig"), path))
    except (ValueError, csv.Error) as error:
        raise FcbenchError(f"{path} holds no published curves: {str(error).removesuffix('.')}.") from None
    if not curves:
        raise FcbenchError(f"{path} holds no published curves: it is empty.")
    return curves


def add(rows: pd.DataFrame, paths: Sequence[Path]) -> pd.DataFrame:
    """Add published curves to rows, as kind ``published``, in every situation with their task and metric.

    A curve whose task or metric was not measured is left out with a warning. `rows`: of
    `fcbench.analysis.situations.load`, or a subset of them. Raises `FcbenchError`: see `read`; also a label in two
    files, or a file without any matching curve.
    """
    frames, labels = [rows], dict[str, Path]()
    for path in paths:
        curves = read(path)
        for label in dict.fromkeys(c.label for c in curves):
            if labels.setdefault(label, path) != path:
                raise FcbenchError(f"{labels[label]} and {path} both hold a curve {label!r}; rename one.")
        homeless = [c for c in curves if not _places(rows, c).any()]
        reasons = "; ".join(f"{c.label}: {_homeless(rows, c)}" for c in homeless)
        if len(homeless) == len(curves):
            raise FcbenchError(f"no curve of {path} has a place here: {reasons}.")
        if homeless:
            log.warning("%s: left out: %s", path, reasons)
        frames += [frame for curve in curves if curve not in homeless for frame in _placed(rows, curve)]
    return pd.concat(frames, ignore_index=True) if paths else rows


def in_unit(rows: pd.DataFrame, x: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows without published ones that have no rate in a unit, and a line that says why for each curve left out. Raises
    `FcbenchError`: an unknown unit, or one that no measured row states."""
    if x not in UNITS:
        raise FcbenchError(unknown("rate axis", x, UNITS))
    sent = rows[rows["kind"].isin(SENT) & (rows["kind"] != Kind.PUBLISHED) & (rows["status"] == OK)]
    if len(sent) and sent[x].isna().all():
        schemas = " and ".join(map(str, sorted(set(sent["schema"]))))
        raise FcbenchError(f"these rows are of schema {schemas} and do not state {x}; give another unit of the rate.")
    other = (rows["kind"] == Kind.PUBLISHED) & rows[x].isna()
    notes = []
    for label, one in rows[other].groupby("codec", sort=False):
        units = [unit for unit in UNITS if one[unit].notna().any()]
        notes.append(f"{label}: its rate is in {' and '.join(units)}, so it is not compared in {x}")
    return rows[~other], notes


def source_of(rows: pd.DataFrame) -> str:
    """Where the numbers of published rows are from; empty for measured ones."""
    return str(rows[SOURCE].iloc[0]) if SOURCE in rows and (rows["kind"] == Kind.PUBLISHED).all() else ""


def _of_csv(text: str, _: Path) -> Iterator[PublishedCurve]:
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [c for c in COLUMNS if c not in (lines.fieldnames or ())]
    if missing:
        raise ValueError(f"columns {', '.join(missing)} are missing; needed: {', '.join(COLUMNS)}")
    points: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for line in lines:
        where = f"line {lines.line_num}"
        key = tuple((line[c] or "").strip() for c in ("label", "task", "metric", "rate_unit", "source"))
        if not all((key[0], key[2], key[4])):
            raise ValueError(f"{where} lacks a label, metric or source")
        if key[3] not in UNITS:
            raise ValueError(f"{where}: {unknown('rate_unit', key[3], UNITS)}")
        points.setdefault(key, []).append(_point(line["rate"], line["value"], where))
    for (label, task, metric, unit, source), curve in points.items():
        yield PublishedCurve(label, task, metric, unit, source, tuple(curve))


def _of_compressai(text: str, path: Path) -> Iterator[PublishedCurve]:
    record = json.loads(text)
    results = record.get("results") if isinstance(record, dict) else None
    if not isinstance(results, dict) or not isinstance(results.get("bpp"), list):
        raise ValueError('expected {"name": ..., "results": {"bpp": [...], METRIC: [...]}}')
    rates = results["bpp"]
    label, said = str(record.get("name") or path.stem), str(record.get("description") or "").strip()
    for metric, values in results.items():
        if metric == "bpp" or not isinstance(values, list):
            continue
        if len(values) != len(rates):
            raise ValueError(f"{metric} has {len(values)} values, bpp {len(rates)}")
        points = tuple(_point(r, v, f"{metric}, point {i}") for i, (r, v) in enumerate(zip(rates, values), 1))
        yield PublishedCurve(label, "", metric, "bpp", f"{path.name}: {said}" if said else path.name, points)


def _point(rate: object, value: object, where: str) -> tuple[float, float]:
    try:
        numbers = float(str(rate)), float(str(value))
    except ValueError:
        raise ValueError(f"{where}: rate {rate!r} and value {value!r} are not two numbers") from None
    if not (math.isfinite(numbers[1]) and 0 < numbers[0] < math.inf):
        raise ValueError(f"{where}: got rate {rate} and value {value}; need a rate above 0 and a finite value")
    return numbers


def _places(rows: pd.DataFrame, curve: PublishedCurve) -> pd.Series:
    of_task = (rows["task"] == curve.task) if curve.task else rows["task"] != ""
    return of_task & (rows["metric"] == curve.metric) & (rows["status"] == OK)


def _placed(rows: pd.DataFrame, curve: PublishedCurve) -> Iterator[pd.DataFrame]:
    beside = rows[_places(rows, curve)].drop_duplicates([*SITUATION, "seed"])
    for i, (rate, value) in enumerate(curve.points):
        said = {
            "kind": Kind.PUBLISHED.value,
            "codec": f"{curve.label} (published)",
            "params": json.dumps({"point": i}),
            "value": value,
            curve.rate_unit: rate,
            SOURCE: curve.source,
        }
        blank = {str(c): "" if rows[c].dtype == object else None for c in rows if c not in _SHARED}
        yield beside.assign(**(blank | said)).astype(dict(rows.dtypes))


def _homeless(rows: pd.DataFrame, curve: PublishedCurve) -> str:
    ok = rows[rows["status"] == OK]
    measured = sorted(set(ok["task"] + " " + ok["metric"]))
    what = " ".join(filter(None, (curve.task, curve.metric)))
    return f"{what} is not measured (measured: {', '.join(measured)})"
