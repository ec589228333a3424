"""Measure rate-accuracy points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcbench.suite import TASKS, Suite
from fcbench.types import FcbenchError
from fcbench.verbs._options import Size, cache_option
from fcbench.verbs._suite import device_of, suite_of

if TYPE_CHECKING:
    from fcbench.plan import Counts

EPILOG_RUN = """\b
Examples:
  fcbench run                                    both embedded encoders, four tasks
  fcbench run --quick --out runs/look            a minute, to see that all works
  fcbench run benchmarks/codecs_scenes.py --plan  what it will cost: points, trainings, time, disk
  fcbench run --codec hyperprior --codec factorized --task depth
  fcbench run --encoder timm:tf_efficientnet_lite0 --dataset camvid --data-root camvid --task segmentation
"""


@click.command("run", epilog=EPILOG_RUN)
@click.argument(
    "suite_file", metavar="[SUITE.py]", required=False, type=click.Path(path_type=Path)
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME[:VARIANT]",
    help="Repeatable. [hiera_nano, sam2_nano]",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="Repeatable. [uniform, hyperprior]",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help=f"Repeatable. [{', '.join(TASKS)}]",
)
@click.option("--dataset", metavar="NAME", help="[scenes]")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of a data set that is read from disk.",
)
@click.option(
    "--split",
    metavar="NAME",
    help="Split point or group, or several: stage3, fpn, stage2+stage3. [the encoder's default]",
)
@click.option("--neck", metavar="NAME", help="[neck_2L]")
@click.option(
    "--head",
    type=click.Choice(["trained", "frozen"]),
    help="Trained with the neck, or the frozen decoder of a task model. [trained]",
)
@click.option(
    "--neck-loss",
    type=click.Choice(["task", "distill", "both"]),
    help="What trains the neck before a frozen decoder: the task, the task model's own features, both. [task]",
)
@click.option(
    "--task-model",
    "task_models",
    multiple=True,
    metavar="TASK=NAME[:VARIANT]",
    help="Whose decoder is used, repeatable; `fcbench list taskmodels`. [the data set's default]",
)
@click.option(
    "--task-weights",
    multiple=True,
    metavar="TASK=random|FILE",
    help="Of a task model, repeatable. [its own: official or embedded]",
)
@click.option(
    "--objective",
    type=click.Choice(["mse", "task", "both"]),
    help="What learned codecs preserve: features, the task's loss, both. [mse]",
)
@click.option(
    "--lambdas",
    metavar="L1,L2,...",
    help="lmbda of every learned codec. [each codec's default sweep]",
)
@click.option(
    "--image-size",
    type=Size(),
    help="Resize images and targets to this. [the data set's own]",
)
@click.option(
    "--weights",
    metavar="random|FILE",
    help="Of the encoder. [its own: official or embedded]",
)
@click.option("--seeds", metavar="S1,S2,...", help="[0]")
@click.option(
    "--n-train",
    type=click.IntRange(min=1),
    help="Use at most so many training samples.",
)
@click.option(
    "--n-test", type=click.IntRange(min=1), help="Use at most so many test samples."
)
@click.option(
    "--task-steps", type=click.IntRange(min=1), help="Training steps of neck and head."
)
@click.option(
    "--codec-steps", type=click.IntRange(min=1), help="Training steps of a codec."
)
@click.option("--batch", type=click.IntRange(min=1), help="Samples a training step.")
@click.option(
    "--on-bad-image",
    type=click.Choice(["stop", "skip"]),
    help="Stop at an unreadable image, or go on. [stop]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="A minute's run to see that all works; not to be quoted.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/default"),
    show_default=True,
    help="Results folder; a run resumes in it.",
)
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Say what is to be done, how long and how much disk it will take, and stop. Takes a minute or so.",
)
@click.option(
    "--keep-streams", is_flag=True, help="Keep the .fcb files under OUT/streams."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [all cores]")
@cache_option
def run(
    suite_file: Path | None, out: Path, cache_dir: Path, device: str, threads: int | None, only_plan: bool,
    keep_streams: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure rate-accuracy points: code features, read them, write OUT/rates.csv and OUT/curves.png.

    Every point is written when it is done; the same command resumes at the first missing one.
    """
    suite = _without_missing(suite_of(suite_file, options))
    import torch

    from fcbench import pipeline, plan
    from fcbench.opened import open_data

    if threads:
        torch.set_num_threads(threads)
    where = device_of(device)
    data = open_data(suite, cache_dir)
    counts = plan.count(suite, out, cache_dir, where, data)
    if only_plan:
        _say_plan(suite, counts, cache_dir, where, keep_streams)
        return
    click.echo(counts.line)
    summary = pipeline.measure(
        suite, out, cache_dir, where, keep_streams=keep_streams, data=data
    )
    click.echo(
        f"{summary.n_measured} points measured, {summary.n_found} found done, in {out}"
    )
    if summary.n_coded:
        from fcbench.verbs.plot import draw

        draw(out, out / "curves.png")
    if summary.failures:
        raise FcbenchError(
            f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}"
        )


def _without_missing(suite: Suite) -> Suite:
    """The suite, checked, without codecs whose program is not on this machine: each is named with the reason.

    Raises:
        FcbenchError: bad input, or nothing is left.
    """
    suite.check()
    missing = suite.missing()
    left = tuple(c for c in suite.codecs if c not in missing)
    if not left:
        raise FcbenchError(f"no codec of this run is here: {'; '.join(dict.fromkeys(missing.values()))}")  # fmt: skip
    for codec, reason in missing.items():
        click.echo(f"skipped {codec}: {reason}", err=True)
    return replace(suite, codecs=left)


def _say_plan(
    suite: Suite, counts: Counts, cache_dir: Path, device: Any, keep_streams: bool
) -> None:
    """The cost of what is left; timed only where something is."""
    from fcbench._plan_table import table
    from fcbench.plan import probe

    left = counts.left(suite)
    if left is None:
        click.echo(f"{counts.line}; nothing is left to measure")
        return
    click.echo(table(counts, probe(left, cache_dir, device)))
    if keep_streams:
        click.echo("the .fcb files of --keep-streams come on top of that")


COMMAND = run
