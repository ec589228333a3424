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
from fcbench.reports.style import COLOURS, MARKERS, METRIC_LABELS, PAGE_IN, STYLE

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
    higher_is_better: bool
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
                    bool(one["higher_is_better"].iloc[0]),
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
    """Against the default split point, over the encoder's operations before the split: rate at equal accuracy, and
    under it accuracy at equal rate, upwards where it is better."""
    tasks = list(dict.fromkeys(c.task for c in found))
    encoders = list(dict.fromkeys(c.encoder for c in found))
    ordered = sorted(found, key=lambda c: c.kmac_before)
    names = {c.split: f"{c.split}\n{c.kmac_before:.3g}" for c in ordered}
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 4.2), layout="constrained")
        panels = fig.subplots(2, len(tasks), squeeze=False, sharex=True)
        for (top, bottom), task in zip(panels.T, tasks):
            of_task = [c for c in ordered if c.task == task]
            for e, encoder in enumerate(encoders):
                line = [c for c in of_task if c.encoder == encoder]
                how: Any = {"marker": MARKERS[e], "color": COLOURS[e], "ms": 3, "lw": 1, "elinewidth": 0.6}
                at_equal = [c.extra_rate_percent for c in line], [c.accuracy_at_equal_rate for c in line]
                for ax, numbers, factor in zip((top, bottom), at_equal, (True, False)):
                    splits, y, low, high = _known([c.split for c in line], numbers, factor)
                    x = [list(names).index(split) for split in splits]
                    bars = [[b - a for a, b in zip(low, y)], [b - a for a, b in zip(y, high)]]
                    ax.errorbar(x, y, bars, label=encoder, **how)
            top.axhline(1, color="#000000", lw=0.5)
            bottom.axhline(0, color="#000000", lw=0.5)
            top.set_title(task)
            top.set_yscale("log", base=2)
            top.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            top.yaxis.set_minor_formatter(NullFormatter())
            bottom.set_ylabel(f"Δ {METRIC_LABELS.get(of_task[0].metric, of_task[0].metric)} at equal rate")
            bottom.set_xticks(range(len(names)), list(names.values()), fontsize=6)
            if not of_task[0].higher_is_better:
                bottom.invert_yaxis()
        panels[0][0].set_ylabel("Relative rate at equal accuracy")
        fig.supxlabel("Split point, and operations before it (kMAC/px)", fontsize=8)
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return fig


def _known(
    splits: Sequence[str], numbers: Sequence[Estimate], factor: bool
) -> tuple[list[str], list[float], list[float], list[float]]:
    """Split points whose numbers were not refused, the numbers, as factors if in percent, and intervals."""
    known = [(s, n) for s, n in zip(splits, numbers) if n.value is not None]
    values = [n.value or 0.0 for _, n in known]
    lows = [v if n.low is None else n.low for v, (_, n) in zip(values, known)]
    highs = [v if n.high is None else n.high for v, (_, n) in zip(values, known)]
    y, low, high = ([1 + p / 100 for p in side] if factor else side for side in (values, lows, highs))
    return [s for s, _ in known], y, low, high
