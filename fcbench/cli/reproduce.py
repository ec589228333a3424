"""Reproduce a published experiment: its tables, from one command."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcbench.cli.options import numbers
from fcbench.cli.say import say, size
from fcbench.cli.suite_options import machine_options, suite_of, suite_options
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically

if TYPE_CHECKING:
    from fcbench.measure.study import Study
    from fcbench.measure.suite import Suite

_LEFT_OUT = (
    *("suite_file", "encoders", "tasks", "codecs", "neck", "neck_loss", "objective", "lambdas", "codec_steps"),
    *("features", "metric_command", "codec_data"),
)
_BUDGET, _HEAD = "full", "frozen"


@click.command("reproduce")
@click.argument("experiment", metavar="paper", type=click.Choice(["paper"]))
@click.option("--encoders", metavar="GENERAL,SPECIAL", default="hiera_nano,sam2_nano", show_default=True)
@click.option("--tasks", metavar="T1,T2,...", help="At least two. [those of the paper's four that the data set has]")
@click.option("--layers", metavar="N1,N2,...", default="2,4,6", show_default=True, help="Layers of the necks.")
@click.option(
    "--distillation",
    type=click.Choice(["off", "on", "both"]),
    default="both",
    show_default=True,
    help="Train necks before a frozen decoder on the task, also on the decoder's own features, or once each.",
)
@suite_options(
    **dict.fromkeys(_LEFT_OUT),
    head="The frozen decoder of a task model, as in the paper, or trained with the neck, without distillation. "
    f"[{_HEAD}]",
    budget=f"Limit of training steps: to try out, to work with, or to quote. [{_BUDGET}]",
)
@machine_options("runs/paper", coding=False)
@click.option("--plan", "only_plan", is_flag=True, help="Print weights, data, disk and time that it needs, then stop.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share necks and losses."
)
def reproduce(
    experiment: str,
    encoders: str,
    tasks: str | None,
    layers: str,
    distillation: str,
    out: Path,
    cache_dir: Path,
    device: str,
    threads: int | None,
    only_plan: bool,
    jobs: int,
    **options: Any,
) -> None:
    """Measure what "How Universal Are SAM2 Features?" (arXiv 2510.17051) reports, and write its tables.

    Every task behind a neck of its own and behind the frozen neck of each other task, on uncoded features of a general
    and a special encoder, with 2, 4 and 6 layers, distillation off and on. Readouts are trained until their held-out
    loss is flat. Writes OUT/tables.csv, .tex, .md and OUT/necks.png; the same command resumes where it stopped. By
    default it takes our small embedded encoders on procedural scenes: not the paper's.

    \b
    Examples:
      fcbench reproduce paper --plan
      fcbench reproduce paper --quick --out runs/look
      fcbench reproduce paper --encoders hiera:base_plus,sam2:base_plus --dataset coco --data-root COCO \\
          --image-size 512 --plan
    """
    from fcbench.measure import paper

    options |= {"encoders": _names(encoders), "tasks": _names(tasks), "head": options["head"] or _HEAD}
    options["budget"] = options["budget"] or (None if options["quick"] else _BUDGET)
    base = suite_of(None, options)
    necks = [f"neck_{n}L" for n in numbers(layers, int, "--layers")]
    every = paper.suites(base, necks, ("off", "on") if distillation == "both" else (distillation,))
    import torch

    from fcbench.core.cache import Cache
    from fcbench.measure.study import Study, device_of, open_data

    if threads:
        torch.set_num_threads(threads)
    study = Study(base, {}, Cache(cache_dir, base.store_features).make(), device_of(device))
    if only_plan:
        _say_plan(study, every, out)
        return
    study.data = open_data(base, cache_dir)
    failures = paper.measure(study, every, out, jobs, threads)
    write([out / name for name in every], base.encoders[0], out)
    if failures:
        raise FcbenchError(f"{len(failures)} jobs failed, first: {failures[0]}")


def _names(text: str | None) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(filter(None, (text or "").split(",")))


def write(folders: list[Path], general: str, out: Path) -> None:
    """Write the tables and the picture of results folders."""
    import pandas as pd

    from fcbench.analysis import situations
    from fcbench.analysis.paper import cells
    from fcbench.reports import paper_figure, paper_table, style, tables

    rows = pd.concat([situations.load([folder]) for folder in folders], ignore_index=True)
    measured, notes = cells(rows, general)
    document = paper_table.document(measured, rows, general, notes)
    for suffix in (".csv", ".tex", ".md"):
        write_atomically(out / f"tables{suffix}", tables.WRITERS[suffix](document), "choose another --out")
    say(style.save(paper_figure.draw(measured), out / "necks.png"))


def _say_plan(study: Study, every: dict[str, Suite], out: Path) -> None:
    """Print what the experiment needs: weights, data, and, timed on this machine, disk and hours. The study has no data
    yet, so that weights are named even if data are missing."""
    import torch

    from fcbench.cli.plan_table import several
    from fcbench.measure import paper
    from fcbench.measure.study import open_data
    from fcbench.results.provenance import cpu_model

    def say_weights(needed: Iterable[paper.Weights]) -> None:
        for w in needed:
            say(f"  {w.what}: {size(w.n_bytes)} as float32, " + (f"MISSING: {w.missing}" if w.missing else w.origin))

    suite = study.suite
    with paper.offline():
        say("weights:")
        say_weights(paper.encoder_weights(study))
        study.data = open_data(suite, study.cache.root)
        say_weights(paper.decoder_weights(study))
        n_train, n_test = (len(study.data[which]) for which in ("train", "test"))
        where = "embedded" if suite.data_root is None else f"found in {suite.data_root}"
        say(f"data: {suite.dataset}, {where}: {n_train} training and {n_test} test images\n")
        say(several({name: paper.left(study.of(s), out / name) for name, s in every.items()}))
        say(f"memory: {size(paper.memory_bytes(study.of(next(iter(every.values())))))} for the output of a first neck")
    cpu = f"{cpu_model()} with {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name(study.device) if study.device.type == "cuda" else cpu
    say(f"timed just now on {machine} for one process and {suite.encoders[0]}; a point is a training of at most")
    say(f"{suite.budget.task_steps} steps, which ends earlier at a plateau")


COMMAND = reproduce
