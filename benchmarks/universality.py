"""How universal are an encoder's features, in bits? Single-neck, cross-neck, and the cost of specialization.

    python -m benchmarks.universality                      everything, on the embedded encoders
    python -m benchmarks.universality --plan               what it would do, time and disk; does nothing
    python -m benchmarks.universality --quick --out runs/look
    python -m benchmarks.universality --encoders hiera:base_plus,sam2:base_plus --dataset coco --data-root COCO

The first encoder is the general one, the second the special one. Every part writes into its own folder under the
results folder and resumes there; `--only` runs some of them.

- *grid*: encoders x tasks x necks x heads x neck losses, uncoded. Three seeds for the default neck and a trained head,
  one for the others (`--all-seeds`: all for all).
- *coded*: the codecs' sweeps for the default neck, with likelihoods: the cost in accuracy, bits, usable information.
- *cross*: every ordered pair and chain of three, controls, and coding before and between the necks.
- *splits*: rate at equal accuracy at stages 1 to 4, with the linear neck (attention over stage 1's 1024 cells
  would take most of the suite's time); CKA of the two encoders.
- *planted*: effects of known size, and none, as a check of the suite itself.

References:
    Khairi Atani et al., "How Universal Are SAM2 Features?", PCS 2025, arXiv 2510.17051.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import _grid, _planted, _splits
from benchmarks._page import write_page, write_records
from fcbench.analysis import cost, paper, situations
from fcbench.analysis.compare import flat
from fcbench.cli.cross_neck import write as write_cross_neck
from fcbench.cli.options import cache_option
from fcbench.core import registry
from fcbench.core.codecs import Kind, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.core.progress import Report
from fcbench.measure import cross_neck
from fcbench.measure.forecast import Rates, probe
from fcbench.measure.paper import NECKS
from fcbench.measure.points import jobs
from fcbench.measure.run import measure as measure_suite
from fcbench.measure.study import open_study
from fcbench.measure.suite import BUDGETS, TASKS, Suite
from fcbench.measure.trial import Trial
from fcbench.reports import cost_figure, cost_table, paper_figure, style, tables
from fcbench.results.folder import ResultsFolder
from fcbench.training.options import QUICK

PARTS = ("grid", "coded", "cross", "splits", "planted")
LOSSES = ("task", "distill", "both")
UNCODED = Suite(codecs=("raw",), params={"raw": ({"dtype": "fp16"},)})
"""Codecs of a run where only uncoded points are wanted: 16 bits per feature, beside the ceiling's 32."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The whole suite.

    Attributes:
        base: both encoders, data, budget; the default neck with a trained head.
        losses: of necks before a frozen head; empty for no frozen heads (a data set without task models).
        length: of the longest chains.
        split_points: of the split-point study.
        shares, ranks: sizes of the planted effects.
    """

    base: Suite
    necks: tuple[str, ...] = NECKS
    losses: tuple[str, ...] = LOSSES
    seeds: tuple[int, ...] = (0, 1, 2)
    all_seeds: bool = False
    length: int = 3
    split_points: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")
    shares: tuple[float, ...] = (0.25, 0.75)
    ranks: tuple[int, ...] = (1, 8, 32)

    def grid(self) -> list[Suite]:
        """Uncoded runs for each neck, head and loss."""
        out = []
        for neck in self.necks:
            one = self.base.neck == neck or self.all_seeds
            seeds = self.seeds if one else self.seeds[:1]
            plain = replace(self.base, name="universality-grid", codecs=UNCODED.codecs)
            plain = replace(plain, params=UNCODED.params, null_model=False)
            own = replace(plain, neck=neck, seeds=seeds)
            out.append(own)
            for loss in self.losses if one else self.losses[:1]:
                few = seeds if self.all_seeds else seeds[:1]
                out.append(replace(own, head="frozen", neck_loss=loss, seeds=few))  # type: ignore[arg-type]
        return out

    def coded(self) -> Suite:
        """The codecs' sweeps for the default neck."""
        return replace(self.base, name="universality-coded", seeds=self.seeds)

    def cross(self) -> Suite:
        """Chains of the default neck."""
        return replace(self.few(), name="universality-cross", seeds=self.seeds[:1])

    def few(self) -> Suite:
        """The last of the codecs without its highest rate, for chains and split points."""
        codec = self.base.codecs[-1]
        sweep = registry.get("codec", codec).sweep(self.base.objective)
        fewer = tuple((self.base.params.get(codec) or sweep)[:-1])
        return replace(self.base, codecs=(codec,), params={codec: fewer})

    def cut(self, split_point: str) -> Suite:
        """A codec's sweep at a split point."""
        return replace(
            self.few(),
            name="universality-splits",
            null_model=False,
            split_point=split_point,
            neck="linear",
            seeds=self.seeds[:1],
        )

    def planted(self) -> Suite:
        """Planted effects on the general encoder."""
        general, seeds = self.base.encoders[:1], self.seeds[:1]
        plain = replace(self.base, name="universality-planted", codecs=UNCODED.codecs)
        return replace(plain, params=UNCODED.params, encoders=general, seeds=seeds)

    def effects(self) -> list[_planted.Effect]:
        """The planted effects."""
        return _planted.effects(self.shares, self.ranks)

    def counts(self, part: str) -> tuple[int, int, int]:
        """Points, trainings of readouts, trainings of codecs, from an empty cache, without sharing between parts."""
        n = len(self.base.encoders) * len(self.base.tasks)
        every = jobs(self.base if part == "coded" else self.cross())
        n_points = len(every)
        n_trained = sum(j.kind == Kind.CODED and _trained(j.point) for j in every)
        if part == "grid":
            runs = sum(len(s.seeds) for s in self.grid())
            return n * runs * 3, n * runs, 0
        if part == "coded":
            each = len(self.base.encoders) * len(self.seeds)
            return n * len(self.seeds) * n_points, len(self.base.tasks), each * n_trained
        if part == "cross":
            n_chains = len(list(cross_neck.chains(self.base.tasks, self.base.neck, self.length)))
            n_chains *= len(self.base.encoders)
            n_coded = (n_points - 2) * (1 + 2 * len(self.base.tasks)) * n
            return n_chains + n_coded, n_chains, n_trained * n
        if part == "splits":
            k = len(self.split_points)
            return k * n * n_points, k * n, k * len(self.base.encoders) * n_trained
        each = len(self.effects()) * len(self.base.tasks)
        return each, each, 0


QUICK_EXPERIMENT = Experiment(
    Suite(
        name="universality-quick",
        codecs=("uniform",),
        tasks=("depth", "segmentation"),
        n_train=60,
        n_test=24,
        params={"uniform": tuple({"bits": b} for b in (2, 3, 4, 6, 7))},
        budget=replace(QUICK, task_steps=25, codec_steps=5, task_batch=8, codec_batch=8, width=64),
        image_size_px=(64, 64),
    ),
    necks=("neck_2L", "neck_4L"),
    losses=(),
    seeds=(0,),
    length=2,
    split_points=("stage3", "stage4"),
    shares=(0.75,),
    ranks=(16,),
)


# --------------------------------------------------------------------------------------------- parts
@dataclass(frozen=True, slots=True)
class Run:
    """An experiment with its folders, cache and device."""

    experiment: Experiment
    out: Path
    cache_dir: Path
    device: torch.device

    def measure(self, suite: Suite, part: str) -> tuple[str, ...]:
        """Measure points of a suite into a part's folder. Returns failures."""
        folder = self.out / part
        done = measure_suite(open_study(suite, self.cache_dir, self.device), folder)
        click.echo(f"{part}: measured {done.n_measured} points; {done.n_found} were already there")
        return done.failures

    def grid(self) -> Iterator[str]:
        """Uncoded single necks."""
        for suite in self.experiment.grid():
            yield from self.measure(suite, "grid")
        general, special = self.experiment.base.encoders
        rows = situations.load([self.out / "grid"])
        found = cost.costs(rows, general, special).costs
        write_records(self.out / "grid", list(_grid.records(found)))
        style.save(paper_figure.draw(paper.cells(rows, general)[0]), self.out / "grid.png")

    def coded(self) -> Iterator[str]:
        """Rate-accuracy curves with likelihoods, and the cost of specialization."""
        suite = self.experiment.coded()
        yield from self.measure(suite, "coded")
        general, special = self.experiment.base.encoders
        rows = situations.load([self.out / "coded"])
        found = cost.costs(rows, general, special)
        document = cost_table.document(found)
        for suffix in (".txt", ".csv", ".md", ".json"):
            write_atomically(self.out / f"cost{suffix}", tables.WRITERS[suffix](document))
        style.save(cost_figure.draw(found), self.out / "cost.png")

    def cross(self) -> Iterator[str]:
        """Chains of necks."""
        folder = self.out / "cross"
        study = open_study(self.experiment.cross(), self.cache_dir, self.device)
        done = cross_neck.measure(study, folder, length=self.experiment.length, coded=True)
        click.echo(f"cross: measured {done.n_measured} points; {done.n_found} were already there")
        yield from done.failures
        write_cross_neck(folder)

    def splits(self) -> Iterator[str]:
        """Split points, and similarity of the encoders."""
        for split_point in self.experiment.split_points:
            yield from self.measure(self.experiment.cut(split_point), "splits")
        rows = situations.load([self.out / "splits"])
        default = "stage3" if "stage3" in self.experiment.split_points else self.experiment.split_points[0]
        found = list(_splits.cuts(rows, default))
        write_records(self.out / "splits", [flat(c) for c in found])
        style.save(_splits.draw(found), self.out / "splits.png")
        alike = _splits.likeness(self.experiment.base, self.experiment.split_points, self.cache_dir, self.device)
        write_records(
            self.out / "cka", [{"split": s, "value": b.value, "low": b.low, "high": b.high} for s, b in alike]
        )

    def planted(self) -> Iterator[str]:
        """Planted effects, and whether they are found."""
        suite = self.experiment.planted()
        study = open_study(suite, self.cache_dir, self.device)
        with ResultsFolder(self.out / "planted") as folder, Report(0) as report:
            folder.add_provenance(suite.as_json())
            source = study.source(study.encoder(suite.encoders[0]), report)
            for seed in suite.seeds:
                trial = Trial(study, source, seed, report)
                for line in _planted.measure(trial, self.experiment.effects(), folder):
                    report.say(line)
        write_records(self.out / "planted", list(self.found_effects()))
        yield from ()

    def found_effects(self) -> Iterator[dict[str, Any]]:
        """Each planted effect on each task: the cost, and whether its interval excludes zero."""
        rows = situations.load([self.out / "planted"])
        name = self.experiment.base.encoders[0]
        others = [f"{name} {e.label}" for e in self.experiment.effects() if e.label]
        for other in (name, *others):
            for c in cost.costs(rows, name, other).costs:
                for what, n, higher in (
                    (c.metric, c.uncoded, c.higher_is_better),
                    ("usable bits", c.information, True),
                ):
                    yield {
                        "planted": other.removeprefix(name).strip() or "nothing",
                        "task": c.task,
                        "figure": what,
                        "value": n.value,
                        "low": n.low,
                        "high": n.high,
                        "reason": n.reason,
                        "found": cost.verdict(n, higher) or "nothing",
                    }


# -------------------------------------------------------------------------------------------- before
def announce(run: Run, parts: Sequence[str]) -> None:
    """Print points, trainings and their time, from a few timed steps and samples on the first encoder."""
    experiment, total_s, n_bytes = run.experiment, 0.0, 0.0
    rates = probe(open_study(experiment.base, run.cache_dir, run.device))
    readout_s, codec_s, point_s = _means_s(rates)
    readout_bytes = _mean(rates.readout_bytes.values())
    codec_bytes = _mean(rates.make_bytes.values()) + _mean(rates.train_bytes.values())
    for part in parts:
        points, readouts, codecs = experiment.counts(part)
        took_s = readouts * readout_s + codecs * codec_s + points * point_s
        total_s += took_s
        n_bytes += readouts * readout_bytes + codecs * codec_bytes
        click.echo(
            f"{part}: {points} points, {readouts} readouts and {codecs} codecs to train, about {took_s / 60:.0f} min"
        )
    n_bytes += rates.feature_bytes * len(experiment.base.encoders) * 3
    click.echo(f"in all about {total_s / 60:.0f} min from an empty cache, {n_bytes / 1e6:.0f} MB of cache")


def _means_s(rates: Rates) -> tuple[float, float, float]:
    """Means over tasks and codecs: training of a readout, training of a codec, coding and evaluating a point."""
    coded_s = _mean(rates.code_s.values()) / len(rates.read_s)  # once for all tasks
    read_s = _mean(rates.read_s.values()) + coded_s
    point_s = rates.n_test * read_s + _mean(rates.row_s.values())
    return _mean(rates.readout_s.values()), _mean(rates.train_s.values()), point_s


def _mean(values: Iterable[float]) -> float:
    """Mean; zero if there are no values."""
    found = list(values)
    return sum(found) / max(1, len(found))


def _trained(point: OperatingPoint) -> bool:
    return bool(registry.get("codec", point.codec).trained)


# ---------------------------------------------------------------------------------------------- main
def execute(run: Run, parts: Sequence[str]) -> list[str]:
    """Run the parts and write the page. Returns failures."""
    run.out.mkdir(parents=True, exist_ok=True)
    failures = [line for part in parts for line in getattr(run, part)()]
    base = run.experiment.base
    write_page(base.encoders, base.dataset, run.experiment.seeds, run.out)
    return failures


@click.command(help=__doc__.split("\n")[0] if __doc__ else None)
@click.option("--encoders", default="hiera_nano,sam2_nano", show_default=True, help="General,special.")
@click.option("--codecs", default="uniform,hyperprior", show_default=True)
@click.option("--tasks", default=",".join(TASKS), show_default=True)
@click.option("--dataset", default="scenes", show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path))
@click.option("--splits", default="stage1,stage2,stage3,stage4", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--all-seeds", is_flag=True, help="Every seed for every neck, head and loss of the grid.")
@click.option("--no-frozen", is_flag=True, help="Leave frozen heads out (a data set without task models).")
@click.option("--budget", type=click.Choice(BUDGETS), default="demo", show_default=True, help="As of `fcbench run`.")
@click.option("--n-train", type=click.IntRange(min=1))
@click.option("--n-test", type=click.IntRange(min=1))
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Repeatable. [all]")
@click.option("--quick", is_flag=True, help="Tiny sizes to check that everything works; not to be quoted.")
@click.option("--plan", "only_plan", is_flag=True, help="Report what would be done, and stop.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/universality"), show_default=True)
@click.option("--device", default="cpu", show_default=True)
@cache_option
def main(
    encoders: str,
    codecs: str,
    tasks: str,
    dataset: str,
    data_root: Path | None,
    splits: str,
    seeds: str,
    all_seeds: bool,
    no_frozen: bool,
    budget: str,
    n_train: int | None,
    n_test: int | None,
    only: tuple[str, ...],
    quick: bool,
    only_plan: bool,
    out: Path,
    device: str,
    cache_dir: Path,
) -> None:
    names = tuple(encoders.split(","))
    if len(names) != 2:
        raise FcbenchError(f"--encoders {encoders}: give two, general,special")
    base = Suite(
        name="universality",
        encoders=names,
        codecs=tuple(codecs.split(",")),
        tasks=tuple(tasks.split(",")),
        dataset=dataset,
        data_root=data_root,
        n_train=n_train,
        n_test=n_test,
    )
    experiment = Experiment(
        base.at(budget),
        losses=() if no_frozen else LOSSES,
        seeds=tuple(int(s) for s in seeds.split(",")),
        all_seeds=all_seeds,
        split_points=tuple(splits.split(",")),
    )
    run = Run(QUICK_EXPERIMENT if quick else experiment, out, cache_dir, torch.device(device))
    run.experiment.base.check()
    parts = only or PARTS
    announce(run, parts)
    if only_plan:
        return
    failures = execute(run, parts)
    click.echo(f"{out / 'tables.md'}")
    if failures:
        raise FcbenchError(f"{len(failures)} jobs failed, first: {failures[0]}")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (FcbenchError, click.ClickException) as error:
        raise SystemExit(f"Error: {error}") from None
