"""Where to cut: rate at equal accuracy against the depth of the split, and how alike two encoders are at each stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fcbench import compare, series
from fcbench._paired import ValuesOf
from fcbench.bench import Bench
from fcbench.compare import Number
from fcbench.information import Bits
from fcbench.opened import open_data
from fcbench.pipeline import build_encoder
from fcbench.progress import Report
from fcbench.similarity import maps_cka
from fcbench.suite import Suite

BATCH = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """One split point of one encoder for one task.

    Attributes:
        extra_rate_percent, accuracy_at_equal_rate: against the default split point.
        kmac_before, kmac_after: multiply-accumulates of the encoder, thousands a pixel; after: up to the last split.
    """

    encoder: str
    task: str
    metric: str
    codec: str
    split: str
    ceiling: float
    kmac_before: float
    kmac_after: float
    extra_rate_percent: Number
    accuracy_at_equal_rate: Number


def cuts(rows: pd.DataFrame, default: str, values_of: ValuesOf) -> Iterator[Cut]:
    """Every split point against the default one: `compare` with split points for codecs."""
    rows = rows[rows["primary"] & (rows["status"] == "ok")]
    kmac = rows["kmac_per_px"].map(lambda text: float(json.loads(text)["encoder"]))
    rows = rows.assign(kmac=kmac)
    for (encoder, task), one in rows.groupby(["encoder", "task"], sort=False):
        ends = one[one["kind"] == series.CEILING].groupby("split")["value"].mean()
        macs = one.groupby("split")["kmac"].mean()
        coded = one[one["kind"] == "coded"]
        for codec, curves in coded.groupby("codec", sort=False):
            found: dict[str, Any] = {}
            if default in set(curves["split"]):
                as_codecs = curves.assign(codec=curves["split"], split="", objective="")
                whole, _ = compare.compare(as_codecs, default, values_of=values_of)
                found = {c.codec: c for c in whole}
            for split in sorted(set(curves["split"])):
                nothing = Number(reason=f"no points at {default}")
                test = found.get(split)
                yield Cut(
                    str(encoder), str(task), str(one["metric"].iloc[0]), str(codec), split,
                    float(ends.get(split, float("nan"))), float(macs[split]), float(macs.max() - macs[split]),
                    test.bd_rate_percent if test else nothing, test.bd_accuracy if test else nothing,
                )  # fmt: skip


def likeness(
    suite: Suite, splits: Sequence[str], cache_dir: Path, device: torch.device
) -> Iterator[tuple[str, Bits]]:
    """Linear CKA of two encoders' features of the test images at each split point that both have."""
    first, second = (build_encoder(e, suite.weights, device) for e in suite.encoders)
    data = open_data(suite, cache_dir)
    with Report(0) as report:
        for split in splits:
            stores = []
            for encoder in (first, second):
                one = replace(suite, split=split)
                bench = Bench(one, data, encoder, 0, cache_dir, device, report)
                stores.append((bench.test.store, bench.splits[0]))
            n = len(stores[0][0])
            pairs = (
                tuple(
                    s.batch(range(i, min(i + BATCH, n)))[m].numpy() for s, m in stores
                )
                for i in range(0, n, BATCH)
            )
            yield split, maps_cka(((a, b) for a, b in pairs), n)


def save_figure(found: Sequence[Cut], path: Path) -> None:
    """Extra bits at equal accuracy over the share of the encoder that runs before the split."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from fcbench._plot_style import COLOURS, MARKERS, PAGE_IN, STYLE

    tasks = list(dict.fromkeys(c.task for c in found))
    encoders = list(dict.fromkeys(c.encoder for c in found))
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 2.2), layout="constrained")
        FigureCanvasAgg(fig)
        for ax, task in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks):
            for e, encoder in enumerate(encoders):
                line = [c for c in found if (c.task, c.encoder) == (task, encoder)]
                line = [c for c in line if c.extra_rate_percent.value is not None]
                line.sort(key=lambda c: c.kmac_before)
                y = [c.extra_rate_percent.value or 0.0 for c in line]
                style: dict[str, Any] = {"marker": MARKERS[e], "color": COLOURS[e]}
                x = [c.kmac_before for c in line]
                ax.plot(x, y, ms=3, lw=1, label=encoder, **style)
            ax.axhline(0, color="#000000", lw=0.5)
            ax.set_title(task)
            ax.set_xlabel("Before the split (kMAC/px)")
        fig.axes[0].set_ylabel("Extra bits at equal accuracy (%)")
        fig.axes[-1].legend(frameon=False)
        fig.savefig(path, dpi=200)
