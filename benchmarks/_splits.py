"""Where to cut: rate at equal accuracy against the depth of the split, and similarity of two encoders at each stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.similarity import maps_cka
from fcbench.analysis import compare
from fcbench.analysis.estimate import Estimate
from fcbench.core.codecs import Kind
from fcbench.core.progress import Report
from fcbench.features.feature_set import FeatureSet
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.reports.style import COLOURS, MARKERS, PAGE_IN, STYLE

BATCH = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """One split point of one encoder for one task.

    Attributes:
        extra_rate_percent, accuracy_at_equal_rate: against the default split point.
        kmac_before, kmac_after: multiply-accumulates of the encoder, thousands per pixel; after: up to the last split.
    """

    encoder: str
    task: str
    metric: str
    codec: str
    split: str
    ceiling: float
    kmac_before: float
    kmac_after: float
    extra_rate_percent: Estimate
    accuracy_at_equal_rate: Estimate


def cuts(rows: pd.DataFrame, default: str) -> Iterator[Cut]:
    """Compare every split point with the default one: `compare` with split points instead of codecs."""
    rows = rows[rows["primary"] & (rows["status"] == "ok")]
    kmac = rows["kmac_per_px"].map(lambda text: float(json.loads(text)["encoder"]))
    rows = rows.assign(kmac=kmac)
    for (encoder, task), one in rows.groupby(["encoder", "task"], sort=False):
        ends = one[one["kind"] == Kind.CEILING].groupby("split")["value"].mean()
        macs = one.groupby("split")["kmac"].mean()
        coded = one[one["kind"] == Kind.CODED]
        for codec, curves in coded.groupby("codec", sort=False):
            found: dict[str, Any] = {}
            if default in set(curves["split"]):
                as_codecs = curves.assign(codec=curves["split"], split="", objective="")
                whole, _ = compare.compare(as_codecs, default)
                found = {c.codec: c for c in whole}
            for split in sorted(set(curves["split"])):
                nothing = Estimate(reason=f"no points at {default}")
                test = found.get(split)
                yield Cut(
                    str(encoder),
                    str(task),
                    str(one["metric"].iloc[0]),
                    str(codec),
                    split,
                    float(ends.get(split, float("nan"))),
                    float(macs[split]),
                    float(macs.max() - macs[split]),
                    test.bd_rate_percent if test else nothing,
                    test.bd_accuracy if test else nothing,
                )


def likeness(
    suite: Suite, splits: Sequence[str], cache_dir: Path, device: torch.device
) -> Iterator[tuple[str, Estimate]]:
    """Linear CKA of two encoders' features of the test images at each split point that both have."""
    study = open_study(suite, cache_dir, device)
    with Report(0) as report:
        for split in splits:
            cut = study.of(replace(suite, split_point=split))
            a, b = (cut.source(study.encoder(e), report).test.features for e in suite.encoders)
            pairs = zip(_batches(a), _batches(b))
            yield split, maps_cka(pairs, len(a))


def _batches(features: FeatureSet) -> Iterator[np.ndarray]:
    """[B, C, h, w] of the finest map."""
    spec, _ = features.finest
    return (maps[spec.name].numpy() for maps in features.batches(BATCH))


def draw(found: Sequence[Cut]) -> Figure:
    """Rate at equal accuracy, relative to the default split point, over the encoder's operations before the split."""
    tasks = list(dict.fromkeys(c.task for c in found))
    encoders = list(dict.fromkeys(c.encoder for c in found))
    ordered = sorted(found, key=lambda c: c.kmac_before)
    names = {c.split: f"{c.split}\n{c.kmac_before:.3g}" for c in ordered}
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 2.6), layout="constrained")
        for ax, task in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks):
            for e, encoder in enumerate(encoders):
                line = [c for c in found if (c.task, c.encoder) == (task, encoder)]
                splits, y, low, high = _factors(line)
                x = [list(names).index(split) for split in splits]
                bars = [[b - a for a, b in zip(low, y)], [b - a for a, b in zip(y, high)]]
                ax.errorbar(x, y, bars, marker=MARKERS[e], color=COLOURS[e], ms=3, lw=1, elinewidth=0.6, label=encoder)
            ax.axhline(1, color="#000000", lw=0.5)
            ax.set_title(task)
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_xticks(range(len(names)), list(names.values()), fontsize=6)
        fig.axes[0].set_ylabel("Relative rate at equal accuracy")
        fig.supxlabel("Split point, and operations before it (kMAC/px)", fontsize=8)
        handles, labels = fig.axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return fig


def _factors(line: Sequence[Cut]) -> tuple[list[str], list[float], list[float], list[float]]:
    """Split point, rate relative to the default split's, and its interval; refused ones left out."""
    known = [c for c in line if c.extra_rate_percent.value is not None]
    known.sort(key=lambda c: c.kmac_before)
    numbers = [c.extra_rate_percent for c in known]
    values = [n.value or 0.0 for n in numbers]
    lows = [v if n.low is None else n.low for v, n in zip(values, numbers)]
    highs = [v if n.high is None else n.high for v, n in zip(values, numbers)]
    y, low, high = ([1 + p / 100 for p in side] for side in (values, lows, highs))
    return [c.split for c in known], y, low, high
