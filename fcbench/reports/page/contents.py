"""Contents of a page about results folders, as plain JSON data: cautions, curves, tables, runs.

All numbers come from `fcbench.analysis`; table cells are the same as those the commands print.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fcbench.analysis import compare, cost, cross_neck, distortion, published, situations
from fcbench.analysis.open_ended import is_open
from fcbench.analysis.results import Results
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.reports import compare_table, cost_table, cross_neck_table, style
from fcbench.reports.page import cautions, pictures
from fcbench.reports.tables import NOTHING, Document, Table
from fcbench.results.row import OK

MAX_ENCODERS = 3
"""With more encoders than this no pairs are priced: `fcbench cost` prices a named pair."""

_POINT = ("panel", "metric", "codec_label", "kind", "params")
_NUMBERS = ("bpp", "bpfp", "bytes_per_sample", "value", "ci_low", "ci_high")
_COMPLEXITY = (
    "codec",
    "encode (ms)",
    "decode (ms)",
    "memory (MB)",
    "encode (kMAC/px)",
    "decode (kMAC/px)",
    "parameters",
    "checkpoint (bytes)",
)


def contents(results: Results, name: str) -> dict[str, Any]:
    """Contents for one set of comparable results folders.

    Args:
        name: of the set on the page.

    Raises:
        FcbenchError: no rows, or damaged samples.
    """
    rows = results.rates
    if rows.empty:
        raise FcbenchError(f"no rows in {name} to report; run `fcbench run` first.")
    rows = labelled(rows)
    return {
        "name": name,
        "cautions": cautions.cautions(rows),
        **curves(labelled(distortion.add(results.rates, [distortion.METRIC]))),
        "pictures": pictures.pictures(rows, results.folders),
        "compare": comparisons(results.rates),
        "more": [*_costs(results.rates), *_cross_necks(results.rates), _complexity(rows)],
        "runs": [_run(record) for record in results.provenance],
        "machines": cautions.machines(rows),
    }


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with labels of data, encoder, codec and panel."""
    rows = rows.assign(
        codec_label=situations.codec_labels(rows),
        encoder_label=situations.encoder_labels(rows),
        data_label=situations.data_labels(rows),
    )
    return rows.assign(panel=rows["data_label"] + " / " + rows["encoder_label"] + " / " + rows["task"])


# ------------------------------------------------------------------------------------------- curves
def curves(rows: pd.DataFrame) -> dict[str, Any]:
    """Panels, metrics, codecs and every point of every metric, means over seeds as in `curves_figure`.

    Args:
        rows: of the results, `labelled`, with those of `distortion.add`.
    """
    ok = rows[rows["status"] == OK]
    panels = ok[["panel", "data_label", "encoder_label", "task"]].drop_duplicates("panel")
    metrics = ok[["metric", "higher_is_better"]].drop_duplicates("metric")
    primary = ok[ok["primary"]].drop_duplicates("panel").set_index("panel")["metric"]
    sent = ok[ok["kind"].isin(situations.SENT)]
    codecs = list(dict.fromkeys(sent["codec_label"]))
    names = {"panel": list(panels["panel"]), "metric": list(metrics["metric"]), "codec_label": codecs}
    knobs = names["params"] = list(dict.fromkeys(sent["params"]))
    return {
        "panels": [
            {
                "title": p.panel,
                "task": p.task,
                "encoder": p.encoder_label,
                "primary": primary.get(p.panel, distortion.METRIC),
            }
            for p in panels.itertuples()
        ],
        "metrics": [
            {"name": m.metric, "label": style.METRIC_LABELS.get(m.metric, m.metric), "up": bool(m.higher_is_better)}
            for m in metrics.itertuples()
        ],
        "codecs": _styles(sent, codecs),
        "knobs": knobs,
        "points": list(_points(sent[_any_rate(sent)], names)),
        "ends": [
            [names["panel"].index(panel), names["metric"].index(metric), kind, _short(one["value"].mean())]
            for (panel, metric, kind), one in ok[ok["kind"].isin(list(style.ENDS))].groupby(
                ["panel", "metric", "kind"], sort=False
            )
        ],
    }


def _points(sent: pd.DataFrame, names: dict[str, list[str]]) -> Iterator[list[Any]]:
    """Indices of panel, metric, codec and knobs, then rates, value and interval, seeds, how training ended."""
    for key, one in sent.groupby(list(_POINT), sort=False):
        where = [names[column].index(str(k)) for column, k in zip(_POINT, key) if column in names]
        numbers = [_short(one[column].astype(float).mean()) for column in _NUMBERS]
        yield [*where, *numbers, int(one["seed"].nunique()), cautions.of_point(one)]


def _any_rate(sent: pd.DataFrame) -> pd.Series:
    """Which rows have a rate: all measured ones, and published ones with at least one unit."""
    return situations.measured(sent, "bpp") | (sent["kind"] == Kind.PUBLISHED)


def _styles(sent: pd.DataFrame, codecs: Sequence[str]) -> list[dict[str, Any]]:
    """Style of each codec: colour and marker identify it; codecs that code no features are grey."""
    kinds = dict(zip(sent["codec_label"], sent["kind"]))
    still_open = set(sent.loc[is_open(sent), "codec_label"])
    coloured = [c for c in codecs if kinds[c] == Kind.CODED]
    grey = [c for c in codecs if c not in coloured]
    drawn = []
    for name in codecs:
        in_colour = name in coloured
        i = (coloured if in_colour else grey).index(name)
        palette = style.COLOURS if in_colour else style.GREYS
        marker = style.MARKERS[(i if in_colour else i + len(coloured)) % len(style.MARKERS)]
        colour = palette[i % len(palette)]
        drawn.append(
            {
                "name": name,
                "kind": str(kinds[name]),
                "colour": "currentColor" if colour == "#000000" else colour,  # black, or white on a dark page
                "marker": style.svg_path("*" if kinds[name] == Kind.LABEL else marker),
                "dash": _dash(i // len(palette), name in still_open or kinds[name] == Kind.PUBLISHED),
            }
        )
    return drawn


def _dash(round_: int, still_open: bool) -> list[int]:
    """Dashes of a codec's line, by how often its colour was used before; with wide gaps if it had not converged."""
    if still_open:
        return [[4, 3], [5, 3, 1, 3], [1, 3]][min(round_, 2)]
    return [[], [5, 2], [1, 2]][min(round_, 2)]


def _short(value: float) -> float | None:
    """A number rounded to five digits, for figures and tooltips."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


# ------------------------------------------------------------------------------------------- tables
def comparisons(rows: pd.DataFrame) -> dict[str, Any]:
    """The tables of `fcbench compare` by anchor; empty, with a note, if nothing was coded."""
    rows, left_out = published.in_unit(rows, "bpp")
    sent = rows[rows["kind"].isin(situations.SENT)]
    labels = situations.codec_labels(rows)[rows["kind"].isin(situations.CURVES)]
    anchors = list(dict.fromkeys(labels))
    if (sent["kind"] == Kind.REMOTE).any():
        anchors.append(str(Kind.REMOTE))
    if not anchors:
        return {"anchors": [], "tables": [], "after": ["Nothing was coded, so there is nothing to compare."]}
    by_anchor, notes = compare.against_each(rows, anchors)
    documents = [compare_table.document(by_anchor[a], [*left_out, *notes]) for a in anchors]
    return {"anchors": anchors, "tables": [_tables(d) for d in documents], "after": documents[0].after}


def _costs(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Cost of specialization for each pair of encoders; the first of a pair is the general one."""
    encoders = list(dict.fromkeys(rows["encoder"]))
    if 1 < len(encoders) <= MAX_ENCODERS:
        for general, special in itertools.combinations(encoders, 2):
            title = f"Cost of specialization: {special} less {general}"
            try:
                yield _section(title, cost_table.document(cost.costs(rows, general, special)))
            except FcbenchError as error:
                yield {"title": title, "tables": [], "after": [str(error)]}


def _cross_necks(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The matrices of a folder with chains of necks."""
    if rows["neck"].str.contains(" > ").any():
        try:
            yield _section("Cross-neck", cross_neck_table.document(cross_neck.matrices(rows)))
        except FcbenchError as error:
            yield {"title": "Cross-neck", "tables": [], "after": [str(error)]}


def _complexity(rows: pd.DataFrame) -> dict[str, Any]:
    """Cost of coding: medians over the operating points of each codec, one table per data set and encoder."""
    sent = rows[(rows["status"] == OK) & rows["kind"].isin((Kind.CODED, Kind.REMOTE))]
    sent = sent.assign(own=situations.own_tasks(sent))
    once = sent.drop_duplicates(["data_label", "encoder_label", "codec_label", "own", "params", "seed"])
    tables = []
    for (data, encoder), of_encoder in once.groupby(["data_label", "encoder_label"], sort=False):
        lines = [_complexity_cells(str(codec), one) for codec, one in of_encoder.groupby("codec_label", sort=False)]
        tables.append(Table(f"{data} / {encoder}: median over operating points", _COMPLEXITY, lines))
    device = ", ".join(sorted(set(once["device"]))) or "nothing"
    after = [f"Times per image, as measured on {device}: they depend on the machine, not only on the codec."]
    return {"title": "Complexity", "tables": [_table(t) for t in tables], "after": [*after, *_networks(sent)]}


def _networks(sent: pd.DataFrame) -> Iterator[str]:
    """Median times of the networks beside the codecs, one line per encoder and task, where they were measured."""
    for (encoder, task), own in sent.groupby(["encoder_label", "task"], sort=False):
        times = own[["encoder_ms", "neck_ms", "head_ms"]].median().dropna()
        if len(times):
            each = ", ".join(f"{name.removesuffix('_ms')} {ms:.3g} ms" for name, ms in times.items())
            yield f"Networks of {encoder}, {task}: {each}."


def _complexity_cells(codec: str, one: pd.DataFrame) -> list[str]:
    stages = [json.loads(cell or "{}") for cell in one["kmac_per_px"]]
    weights = [json.loads(cell or "{}") for cell in one["n_params"]]
    columns = [
        one["encode_ms"],
        one["decode_ms"],
        one["peak_mb"],
        *(pd.Series([float(s.get(stage, math.nan)) for s in stages]) for stage in ("encode", "decode")),
        pd.Series([float(w.get("codec", math.nan)) for w in weights]),
        one["checkpoint_bytes"],
    ]
    medians = [column.astype(float).median() for column in columns]
    forms = (".4g", ".4g", ".3g", ".4g", ".4g", ".0f", ".0f")
    return [codec, *(NOTHING if math.isnan(m) else format(m, form) for m, form in zip(medians, forms))]


def _section(title: str, document: Document) -> dict[str, Any]:
    return {"title": title, "tables": _tables(document), "after": document.after}


def _tables(document: Document) -> list[dict[str, Any]]:
    return [_table(t) for t in document.tables]


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "header": list(table.header),
        "rows": table.rows,
        "notes": list(table.notes),
        "left": table.n_left,
    }


# --------------------------------------------------------------------------------------------- runs
def _run(record: dict[str, Any]) -> dict[str, str]:
    """A record of provenance.json as readable lines."""
    machine = record.get("machine", {})
    diff = record.get("diff") or {}
    lines = {
        "folder": record.get("folder", ""),
        "time": record.get("utc", ""),
        "command": " ".join(map(str, record.get("command", []))),
        "commit": record.get("commit", ""),
        "differed from the commit": f"{diff['n_bytes']} bytes of diff, sha256 {diff['sha256'][:12]}" if diff else "",
        "machine": ", ".join(str(v) for v in machine.values()),
        "environment": " ".join(f"{k}={v}" for k, v in record.get("environment", {}).items()),
        "versions": ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items()),
    }
    return {k: str(v) for k, v in lines.items() if v}


def links(folders: Sequence[Path], page: Path) -> list[list[str]]:
    """Other pictures and tables in results folders: name, and path from the page."""
    files = [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix in (".png", ".md")]
    return [[f.name, Path(os.path.relpath(f, page.parent)).as_posix()] for f in files]
