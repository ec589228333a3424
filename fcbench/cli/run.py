"""Measure rate-accuracy points."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcbench.cli.say import say
from fcbench.cli.suite_options import machine_options, suite_of, suite_options
from fcbench.core.errors import FcbenchError

if TYPE_CHECKING:
    from fcbench.measure.plan import Counts
    from fcbench.measure.study import Study

EPILOG_RUN = """\b
Examples:
  fcbench run                                    both embedded encoders, four tasks
  fcbench run --quick --out runs/look            a minute, to check that everything works
  fcbench run benchmarks/codecs_scenes.py --plan  its cost: points, trainings, time, disk
  fcbench run --codec hyperprior --codec factorized --task depth
  fcbench run --encoder timm:tf_efficientnet_lite0 --dataset camvid --data-root camvid --task segmentation
"""


REPORT = "report.html"


@click.command("run", epilog=EPILOG_RUN)
@suite_options()
@machine_options("runs/default")
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Report what is left to do and the time and disk it will take, then stop. Takes about a minute.",
)
@click.option("--keep-streams", is_flag=True, help="Keep the .fcb files under OUT/streams.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Worker processes that share the work, each with --threads threads [an equal share of the cores] and, in "
    "turn, one of the GPUs.",
)
@click.option(
    "--ray",
    "ray_address",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Run as tasks of a Ray cluster, each with --threads threads [1]: its address, or auto for the one that this "
    "machine belongs to; without an address, a cluster of this machine's cores.",
)
@click.option(
    "--own-caches",
    is_flag=True,
    help="With --ray: machines do not share --cache-dir; files are copied from and to this machine's.",
)
@click.option(
    "--report/--no-report",
    "wants_report",
    default=None,
    help="Write OUT/report.html at the end, which takes seconds, or minutes for many codecs. [unless --quick]",
)
@click.option(
    "--json-lines",
    is_flag=True,
    help="Progress for machines: one JSON object per line is all that goes to standard output.",
)
@click.option("--gpus-per-task", type=click.FloatRange(min=0), help="With --ray: share of a GPU per task. [0.25]")
def run(
    suite_file: Path | None,
    out: Path,
    cache_dir: Path,
    device: str,
    threads: int | None,
    coding_workers: int,
    only_plan: bool,
    keep_streams: bool,
    jobs: int,
    ray_address: str | None,
    gpus_per_task: float | None,
    own_caches: bool,
    wants_report: bool | None,
    json_lines: bool,
    **options: Any,
) -> None:
    """Measure rate-accuracy points: code features, read them, write OUT/rates.csv, OUT/curves.png, OUT/report.html.

    Every point is written when it is done; the same command resumes where it stopped.
    """
    if ray_address and jobs > 1:
        raise click.UsageError("--jobs and --ray are two ways to share the work: give one")
    if gpus_per_task is not None and not ray_address:
        raise click.UsageError("--gpus-per-task is for --ray")
    if own_caches and not ray_address:
        raise click.UsageError("--own-caches is for --ray")
    suite = suite_of(suite_file, options).runnable(partial(say, err=True))
    import torch

    from fcbench.core.progress import JsonReport
    from fcbench.measure import plan
    from fcbench.measure.executors import Start, here, with_workers
    from fcbench.measure.run import in_terminal, measure
    from fcbench.measure.study import device_of, open_study
    from fcbench.transmit.coders import Coders

    if threads:
        torch.set_num_threads(threads)
    tell = _silent if json_lines else say
    try:
        tell(f"opening {suite.dataset}; the first time, this renders scenes and hashes files", err=True)
        study = open_study(suite, cache_dir, device_of(device))
        counts = plan.count(study, out)
        if only_plan:
            _say_plan(study, counts, keep_streams)
            return
        tell(counts.line)
        start: Start = here if jobs == 1 else partial(with_workers, n=jobs, threads=threads)
        if ray_address:
            from fcbench.measure.on_ray import on_ray

            start = partial(
                on_ray, address=ray_address, threads=threads, gpus_per_task=gpus_per_task, own_caches=own_caches
            )
        show = partial(JsonReport, write=say) if json_lines else in_terminal
        wants_report = not options["quick"] if wants_report is None else wants_report
        with Coders(coding_workers) as study.coders:
            summary = measure(study, out, keep_streams=keep_streams, start=start, show=show)
            is_new = summary.n_coded and (summary.n_measured or not (out / "curves.png").exists())
            if is_new and wants_report:
                tell("drawing a few test images for every point", err=True)
                _write_pictures(study, out)
    except KeyboardInterrupt:
        say(_stopped(out, cache_dir), err=True)
        raise click.exceptions.Exit(130) from None
    tell(f"measured {summary.n_measured} points; {summary.n_found} were already in {out}")
    if is_new:
        from fcbench.cli.plot import draw
        from fcbench.cli.report import write

        draw(out, out / "curves.png", tell)
        if wants_report:
            try:
                write([[out]], out / REPORT, tell=tell)
            except FcbenchError as error:
                tell(f"no {REPORT}: {error}")
    if json_lines:
        say(json.dumps({"event": "end", "out": str(out), **asdict(summary)}))
    if summary.failures:
        raise FcbenchError(f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}")


def _silent(text: object, *, err: bool = False) -> None:
    """Print nothing."""


def _write_pictures(study: Study, out: Path) -> None:
    from fcbench.core.files import write_atomically
    from fcbench.measure.pictures import make_pictures
    from fcbench.results.folder import PICTURES
    from fcbench.results.row import OK
    from fcbench.results.table import load_points

    pictures = make_pictures(study, {row.point for row in load_points(out) if row.status == OK})
    write_atomically(out / PICTURES, json.dumps(pictures, separators=(",", ":")))


def _stopped(out: Path, cache_dir: Path) -> str:
    """Message about what is kept of a stopped run, and how to resume."""
    from fcbench.results.row import OK
    from fcbench.results.table import load_points

    n = len({row.point for row in load_points(out) if row.status == OK})
    return (
        f"stopped: {n} points are in {out}, features and trained models in {cache_dir}. Run the same command to "
        "resume; at most the last minute of a training is repeated"
    )


def _say_plan(study: Study, counts: Counts, keep_streams: bool) -> None:
    """Print the cost of what is left; it is timed only if anything is left."""
    from fcbench.cli.plan_table import table
    from fcbench.measure.forecast import probe

    left = counts.left(study.suite)
    if left is None:
        say(f"{counts.line}; nothing is left to measure")
        return
    say(table(counts, probe(study.of(left))))
    if not study.suite.store_features:
        say("features are not stored: the encoder runs in every training step and evaluation, which the times include")
    if keep_streams:
        say("the .fcb files of --keep-streams are not included")


COMMAND = run
