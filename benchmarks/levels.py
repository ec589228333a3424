"""Does a pyramid cost more than its best single level? Accuracy against bits for every subset of an encoder's stages.

    python -m benchmarks.levels --out results/levels

Every subset of the split points is coded as one sample and read by a linear neck of its own. Each is compared, at equal
accuracy, with the best single level: the upper hull of the points of all single levels, whichever is better where.
`--quick` checks that everything works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks._page import write_records
from fcbench.analysis import compare, situations
from fcbench.cli.options import cache_option
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.measure.run import measure
from fcbench.measure.study import device_of, open_study
from fcbench.measure.suite import BUDGETS, Suite
from fcbench.reports import style
from fcbench.reports.style import COLOURS, MARKERS, METRIC_LABELS, PAGE_IN, STYLE, X_LABELS

BEST = "best single level"
STAGES = ("stage1", "stage2", "stage3", "stage4")


def subsets(names: Sequence[str]) -> list[str]:
    """Every subset as a split point, single ones first.

    >>> subsets(["s1", "s2"])
    ['s1', 's2', 's1+s2']
    """
    return ["+".join(s) for n in range(1, len(names) + 1) for s in combinations(names, n)]


def compared(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One record per task, codec and subset: its uncoded value, and its cost against the best single level."""
    rows = rows[rows["primary"] & (rows["status"] == "ok")]
    ends = rows[rows["kind"] == Kind.CEILING].groupby(["task", "split"])["value"].mean()
    for (task, codec), one in rows[rows["kind"] == Kind.CODED].groupby(["task", "codec"], sort=False):
        curves = one.assign(codec=one["split"], split="", objective="")
        single = curves[~curves["codec"].str.contains("+", regex=False)]
        single = single.assign(params=single["codec"] + single["params"], codec=BEST)
        found, _ = compare.compare(pd.concat([curves, single]), BEST)
        for c in found:
            if c.codec != BEST:
                record = {"task": task, "metric": c.metric, "codec": codec, "levels": c.codec}
                record |= {"uncoded": float(ends.get((task, c.codec), float("nan")))}
                for name, e in (("extra_rate_percent", c.bd_rate_percent), ("accuracy_at_equal_rate", c.bd_accuracy)):
                    record |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high, f"{name}_reason": e.reason}
                yield record


def draw(rows: pd.DataFrame) -> Figure:
    """A panel per task and codec: single levels in colours, subsets of several in greys, darker the more there are."""
    rows = rows[rows["primary"] & (rows["status"] == "ok") & (rows["kind"] == Kind.CODED)]
    tasks, codecs = (list(dict.fromkeys(rows[name])) for name in ("task", "codec"))
    splits = sorted(dict.fromkeys(rows["split"]), key=lambda s: (s.count("+"), s))
    single = [s for s in splits if "+" not in s]
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 0.4 + 2.3 * len(codecs)), layout="constrained")
        panels = fig.subplots(len(codecs), len(tasks), squeeze=False)
        for i, codec in enumerate(codecs):
            for ax, task in zip(panels[i], tasks):
                for split in reversed(splits):
                    one = rows[(rows["task"] == task) & (rows["codec"] == codec) & (rows["split"] == split)]
                    one = one.sort_values("bpp")
                    how: dict[str, Any] = {"color": str(0.8 - 0.8 * split.count("+") / (len(single) - 1)), "lw": 0.8}
                    if split in single:
                        how = {"color": COLOURS[single.index(split)], "marker": MARKERS[single.index(split)], "lw": 1.2}
                    ax.plot(one["bpp"], one["value"], ms=3, label=split, zorder=3 if split in single else 2, **how)
                ax.set_title(f"{task}, {codec}")
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
                ax.xaxis.set_minor_formatter(NullFormatter())
                metric = str(rows.loc[rows["task"] == task, "metric"].iloc[0])
                ax.set_ylabel(METRIC_LABELS.get(metric, metric))
                if not rows.loc[rows["task"] == task, "higher_is_better"].iloc[0]:
                    ax.invert_yaxis()
        fig.supxlabel(X_LABELS["bpp"], fontsize=8)
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False, fontsize=6)
    return fig


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__ and __doc__.split("\n")[0])
@click.option("--encoder", default="hiera_nano", show_default=True)
@click.option("--levels", default=",".join(STAGES), show_default=True, help="Split points, fine to coarse.")
@click.option("--codecs", default="uniform,hyperprior", show_default=True)
@click.option("--tasks", default="segmentation,depth", show_default=True)
@click.option("--dataset", default="scenes", show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option("--n-train", type=click.IntRange(min=1))
@click.option("--n-test", type=click.IntRange(min=1))
@click.option("--budget", type=click.Choice(BUDGETS), default="demo", show_default=True, help="As of `fcbench run`.")
@click.option("--task-steps", type=click.IntRange(min=1), help="Of each readout. [the budget's]")
@click.option("--quick", is_flag=True, help="Tiny sizes to check that everything works; not to be quoted.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/levels"), show_default=True)
@cache_option
def main(
    encoder: str,
    levels: str,
    codecs: str,
    tasks: str,
    dataset: str,
    data_root: Path | None,
    n_train: int | None,
    n_test: int | None,
    budget: str,
    task_steps: int | None,
    quick: bool,
    out: Path,
    cache_dir: Path,
) -> None:
    suite = Suite(
        name="levels",
        encoders=(encoder,),
        codecs=tuple(codecs.split(",")),
        tasks=tuple(tasks.split(",")),
        dataset=dataset,
        data_root=data_root,
        neck="linear",
        null_model=False,
        n_train=n_train,
        n_test=n_test,
    ).at(budget)
    if task_steps:
        suite = replace(suite, budget=replace(suite.budget, task_steps=task_steps))
    suite = suite.quick() if quick else suite
    failures: list[str] = []
    for subset in subsets(levels.split(",")):
        failures += measure(open_study(replace(suite, split_point=subset), cache_dir, device_of("cpu")), out).failures
    rows = situations.load([out])
    write_records(out / "levels", list(compared(rows)))
    style.save(draw(rows), out / "levels.png")
    if failures:
        raise FcbenchError(f"{len(failures)} points failed, first: {failures[0]}")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (FcbenchError, click.ClickException) as error:
        raise SystemExit(f"Error: {error}") from None
