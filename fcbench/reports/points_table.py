"""Points of curves as tables, as CSV for ``--published``, and as CompressAI's results."""

import json
import re
from typing import Any

import pandas as pd

from fcbench.analysis import published, situations
from fcbench.analysis.estimate import Estimate
from fcbench.analysis.variants import FOLDER
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError, unknown
from fcbench.reports.compare_table import UNITS
from fcbench.reports.tables import Document, Table, shown

_NUMBERS = ["rate", "value", "ci_low", "ci_high"]
_PANEL = ["data", "encoder_label", "task", "metric"]


def document(rows: pd.DataFrame, x: str = "bpp", metric: str | None = None) -> Document:
    """Every measured point of every curve, means over seeds: one table per data set, encoder, task and metric.

    The frame has the columns of `published.COLUMNS`, so that others can compare their curves with these. `rows`: of
    `fcbench.analysis.situations.load`. `x`: column of the rate. `metric`: its name; None for each task's primary one;
    ``all`` for every one. Raises `FcbenchError`: a metric that is in no row, no measured point.
    """
    points = _points(rows, x, metric)
    tables, frames = [], []
    for (data, encoder, task, name), one in points.groupby(_PANEL, sort=False):
        cells = [
            [str(p.codec_label), str(p.params), f"{p.rate:.4g}", shown(_estimate(p), ".4g")] for p in one.itertuples()
        ]
        header = ("codec", "operating point", UNITS[x], str(name))
        tables.append(Table(f"{data} / {encoder} / {task}", header, cells, (), 2))
        frames.append(one)
    found = pd.concat(frames, ignore_index=True).assign(rate_unit=x)
    columns = [*published.COLUMNS, "ci_low", "ci_high", "params", "data", "encoder_label"]
    legend = "Each value with its 95 % interval over test samples; means over seeds."
    return Document(tables, "points", found[columns].rename(columns={"encoder_label": "encoder"}), legend)


def compressai(rows: pd.DataFrame) -> dict[str, str]:
    """CompressAI's results, one file per curve: its name -> JSON of bpp and every metric of the task. ``python -m
    compressai.utils.plot -f FILES --metric METRIC`` draws them. Raises `FcbenchError`: no measured point."""
    points = _points(rows, "bpp", "all")
    files = {}
    for (data, encoder, task, label), one in points.groupby(["data", "encoder_label", "task", "label"], sort=False):
        by_metric = one.pivot_table(index=["rate", "params"], columns="metric", values="value", sort=False)
        by_metric = by_metric.dropna().sort_index()
        results = {"bpp": list(by_metric.index.get_level_values("rate")), **by_metric.to_dict("list")}
        record = {"name": label, "description": f"{task} of {encoder} on {data}, by fcbench", "results": results}
        name = "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in (data, encoder, task, label))
        files[f"{name}.json"] = json.dumps(record, indent=1, allow_nan=False) + "\n"
    return files


def _estimate(point: Any) -> Estimate:
    low, high = (None if pd.isna(end) else float(end) for end in (point.ci_low, point.ci_high))
    return Estimate(point.value, low, high)


def _points(rows: pd.DataFrame, x: str, metric: str | None) -> pd.DataFrame:
    rows, _ = published.in_unit(rows, x)
    good = rows[situations.measured(rows, x) & rows["kind"].isin((Kind.CODED, Kind.REMOTE, Kind.LABEL))]
    if good.empty:
        raise FcbenchError("no coded points to write, only ceilings, floors or failures; run a codec first.")
    if metric not in (None, "all", *good["metric"]):
        raise FcbenchError(unknown("metric", str(metric), [*sorted(set(good["metric"])), "all"]))
    if metric != "all":
        good = good[good["primary"]] if metric is None else good[good["metric"] == metric]
    good = good.assign(
        codec_label=situations.codec_labels(good),
        encoder_label=situations.encoder_labels(good),
        data=situations.data_labels(good),
        rate=good[x].astype(float),
    )
    keys = [*_PANEL, "codec_label", "params"]
    means = good.groupby(keys, sort=False)[_NUMBERS].mean().reset_index()
    source = good.groupby(keys, sort=False).agg(folder=(FOLDER, "first"), commit=("commit", "first")).reset_index()
    means["source"] = "fcbench " + source["commit"] + ", " + source["folder"]
    several = [c for c in ("encoder_label", "data") if means[c].nunique() > 1]
    means["label"] = means[["codec_label", *several]].agg(", ".join, axis=1)
    by_curve = means.groupby([*_PANEL, "codec_label"], sort=False)
    return pd.concat([one.sort_values("rate") for _, one in by_curve], ignore_index=True)
