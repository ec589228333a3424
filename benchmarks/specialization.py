"""What does specialization cost if everything but the objective is the same, and how does it grow with training?

    for STAGE in mae attributes promptable both; do
        python -m benchmarks.embedded.train $STAGE --work WORK ...
    done
    python -m benchmarks.specialization --work WORK --out results/specialization

The encoders have one architecture, one masked autoencoder to start from, and the same images, batches, steps and
optimizer. One learns attributes of images (general), one masks of prompted objects (special), one both. They are
measured at every step that all three kept (`--snapshots`), uncoded, and coded at the last one; random weights and the
masked autoencoder show what there was to gain. Every seed of `WORK` is an encoder training of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks._page import write_records
from fcbench.analysis import cost, situations
from fcbench.cli.options import cache_option
from fcbench.core.codecs import Kind
from fcbench.core.errors import FcbenchError
from fcbench.measure.run import measure
from fcbench.measure.study import device_of, open_study
from fcbench.measure.suite import BUDGETS, Suite
from fcbench.reports import style
from fcbench.reports.style import COLOURS, LINES, MARKERS, METRIC_LABELS, PAGE_IN, STYLE

OBJECTIVES = {"attributes": "general", "promptable": "special", "both": "both"}  # Stage of the training -> its encoder
START, RANDOM = "masked autoencoder", "random weights"


@dataclass(frozen=True, slots=True)
class Trained:
    """One encoder: the seed of its training, its objective or where it started, and its steps from there."""

    seed: str
    name: str
    steps: int
    weights: str

    @property
    def label(self) -> str:
        """Its name in comparisons."""
        return f"{self.name}-{self.steps}" if self.steps else self.name.replace(" ", "-")


def encoders(seed: Path) -> list[Trained]:
    """The encoders of a seed: the start, and each objective at every step that all kept; `FcbenchError` if none."""
    start = sorted(seed.glob("mae-*.safetensors"))
    kept = {o: {int(f.stem.split("-")[1]): f for f in seed.glob(f"{o}-*.safetensors")} for o in OBJECTIVES}
    steps = sorted(set.intersection(*map(set, kept.values())))
    if not steps or not start:
        raise FcbenchError(f"{seed}: no weights of mae, or no step at which {', '.join(OBJECTIVES)} all have weights")
    first = [Trained(seed.name, RANDOM, 0, "random"), Trained(seed.name, START, 0, str(start[-1]))]
    return first + [Trained(seed.name, name, n, str(kept[o][n])) for n in steps for o, name in OBJECTIVES.items()]


def records(rows: pd.DataFrame, trained: Sequence[Trained]) -> Iterator[dict[str, Any]]:
    """One record per encoder and task: its value, uncoded, and its cost against the general one of as many steps."""
    ends = rows[(rows["kind"] == Kind.CEILING) & rows["primary"]].set_index(["encoder", "task"])
    for one in trained:
        against: Mapping[str, cost.Cost] = {}
        if one.name in ("special", "both"):
            general = replace(one, name="general").label
            against = {c.task: c for c in cost.costs(rows, general, one.label).costs}
        for task in dict.fromkeys(rows["task"]):
            end = ends.loc[(one.label, task)]
            record = {"seed": one.seed, "encoder": one.name, "steps": one.steps, "task": task}
            record |= {"metric": end["metric"], "uncoded": end["value"], "low": end["ci_low"], "high": end["ci_high"]}
            yield record | (_cost(against[task]) if task in against else {})


def _cost(found: cost.Cost) -> dict[str, Any]:
    numbers = {"difference": found.uncoded, "information_bits": found.information}
    for curve in found.coded:
        if curve.n_points > 1:
            numbers |= {f"extra_rate_percent_{curve.codec}": curve.extra_rate_percent}
            numbers |= {f"difference_at_equal_rate_{curve.codec}": curve.accuracy_at_equal_rate}
    named = {name: (e.value, e.low, e.high) for name, e in numbers.items()}
    return {f"{name}{end}": v for name, of in named.items() for end, v in zip(("", "_low", "_high"), of)}


def draw(table: pd.DataFrame) -> Figure:
    """A panel per task: accuracy against steps, and under it the difference from the general encoder."""
    tasks, steps = list(dict.fromkeys(table["task"])), sorted(set(table["steps"]) - {0})
    with rc_context(STYLE):
        fig = Figure(figsize=(PAGE_IN, 4.2), layout="constrained")
        panels = fig.subplots(2, len(tasks), squeeze=False, sharex=True)
        for (top, bottom), (task, one) in zip(panels.T, table.groupby("task", sort=False)):
            metric = one["metric"].iloc[0]
            top.set_title(task)
            top.set_ylabel(METRIC_LABELS.get(metric, metric))
            bottom.set_xscale("log")
            bottom.set_xticks(steps, list(map(str, steps)))
            bottom.minorticks_off()
            bottom.axhline(0, color="#555555", lw=0.8)
            for line, name in zip(LINES[1:], (START, RANDOM)):
                top.axhline(
                    one.loc[one["encoder"] == name, "uncoded"].mean(), color="#555555", ls=line, lw=0.9, label=name
                )
            for i, name in enumerate(OBJECTIVES.values()):
                of_name = one[one["encoder"] == name]
                for k, (_, line) in enumerate(of_name.groupby("seed")):
                    how: dict[str, Any] = {
                        "color": COLOURS[i],
                        "marker": MARKERS[i],
                        "ms": 3,
                        "lw": 1.0,
                        "ls": LINES[k],
                    }
                    top.plot(line["steps"], line["uncoded"], label=name if k == 0 else None, **how)
                    if name != "general":
                        bottom.plot(line["steps"], line["difference"], **how)
                        ends = line["difference_low"], line["difference_high"]
                        bottom.fill_between(line["steps"], *ends, color=COLOURS[i], alpha=0.15, lw=0)
            if metric == "rmse":
                top.invert_yaxis()
                bottom.invert_yaxis()
        panels[1][0].set_ylabel("less the general encoder")
        fig.supxlabel("Training steps after the masked autoencoder", fontsize=8)
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return fig


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__ and __doc__.split("\n")[0])
@click.option("--work", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the trainings.")
@click.option("--codecs", default="hyperprior", show_default=True)
@click.option("--budget", type=click.Choice(BUDGETS), default="demo", show_default=True, help="As of `fcbench run`.")
@click.option("--quick", is_flag=True, help="Tiny sizes to check that everything works; not to be quoted.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/specialization"), show_default=True)
@cache_option
def main(
    work: Path,
    codecs: str,
    budget: str,
    quick: bool,
    out: Path,
    cache_dir: Path,
) -> None:
    suite = Suite(
        name="specialization",
        encoders=("hiera_nano",),
        codecs=tuple(codecs.split(",")),
    ).at(budget)
    coded = suite.quick() if quick else suite
    uncoded = replace(coded, codecs=("raw",), params={"raw": ({"dtype": "fp16"},)})
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for seed in sorted(work.glob("seed*")):
        trained, labels = encoders(seed), dict[str, str]()
        for one in trained:
            of_encoder = replace(coded if one.steps == trained[-1].steps else uncoded, weights=one.weights)
            study = open_study(of_encoder, cache_dir, device_of("cpu"))
            failures += measure(study, out).failures
            labels[study.encoder(*suite.encoders).weights.sha256] = one.label
        rows = situations.load([out])
        found += records(rows.assign(encoder=rows["weights_sha256"].map(labels)).dropna(subset="encoder"), trained)
        write_records(out / "specialization", found)
        style.save(draw(pd.DataFrame(found)), out / "specialization.png")
    if failures:
        raise FcbenchError(f"{len(failures)} points failed, first: {failures[0]}")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (FcbenchError, click.ClickException) as error:
        raise SystemExit(f"Error: {error}") from None
