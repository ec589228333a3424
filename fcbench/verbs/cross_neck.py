"""Cross-neck analysis: what adapting features to one task costs the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fcbench.types import FcbenchError
from fcbench.verbs._options import Size, cache_option
from fcbench.verbs._suite import device_of, suite_of


@click.command("cross-neck")
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
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help="Repeatable; at least two. [all four]",
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="Also coded, before the first neck and between the two. Repeatable. [none]",
)
@click.option(
    "--lambdas",
    metavar="L1,L2,...",
    help="lmbda of every learned codec. [each codec's default sweep]",
)
@click.option(
    "--length",
    type=click.IntRange(2, 3),
    default=2,
    show_default=True,
    help="Necks of the longest chain.",
)
@click.option("--dataset", metavar="NAME", help="[scenes]")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of a data set that is read from disk.",
)
@click.option("--split", metavar="NAME", help="Split point or group. [the encoder's default]")  # fmt: skip
@click.option("--neck", metavar="NAME", help="Of every level. [neck_2L]")
@click.option("--head", type=click.Choice(["trained", "frozen"]), help="[trained]")
@click.option(
    "--neck-loss",
    type=click.Choice(["task", "distill", "both"]),
    help="Before a frozen head. [task]",
)
@click.option("--image-size", type=Size(), help="Resize images and targets to this. [the data set's own]")  # fmt: skip
@click.option("--weights", metavar="random|FILE", help="Of the encoder. [its own]")
@click.option("--seeds", metavar="S1,S2,...", help="[0]")
@click.option("--n-train", type=click.IntRange(min=1), help="At most so many training samples.")  # fmt: skip
@click.option("--n-test", type=click.IntRange(min=1), help="At most so many test samples.")  # fmt: skip
@click.option("--task-steps", type=click.IntRange(min=1), help="Training steps of a neck and head.")  # fmt: skip
@click.option("--codec-steps", type=click.IntRange(min=1), help="Training steps of a codec.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), help="Samples a training step.")
@click.option("--quick", is_flag=True, help="To see that all works; not to be quoted.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/cross-neck"),
    show_default=True,
    help="Results folder; a run resumes in it.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, mps; auto takes a GPU if there is one.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [all cores]")
@cache_option
def cross_neck(
    suite_file: Path | None, out: Path, cache_dir: Path, device: str, threads: int | None, length: int,
    **options: Any,
) -> None:  # fmt: skip
    """Train task B's neck on the output of task A's frozen neck, for every ordered pair: what is left of B?

    Writes OUT/rates.csv as points are done, and OUT/cross_neck.csv, .md and .png: value, ratio to the direct neck and
    usable bits lost, with 95 % intervals; controls are the same task twice, and one neck as deep as both together.
    The same command resumes at the first missing point.

    \b
    Examples:
      fcbench cross-neck --quick --out runs/look
      fcbench cross-neck --encoder sam2_nano --length 3
      fcbench cross-neck --task depth --task pose --codec hyperprior
    """
    suite = suite_of(suite_file, options)
    coded = bool(options["codecs"])
    import torch

    from fcbench import crossneck

    if threads:
        torch.set_num_threads(threads)
    summary = crossneck.measure(
        suite, out, cache_dir, device_of(device), length=length, coded=coded
    )
    click.echo(
        f"{summary.n_measured} points measured, {summary.n_found} found done, in {out}"
    )
    write(out)
    if summary.failures:
        raise FcbenchError(
            f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}"
        )


def write(out: Path) -> None:
    """The matrices of a results folder, beside its rows: CSV, Markdown, heat maps."""
    from fcbench import _crossneck_tables, series

    found = _crossneck_tables.matrices(series.load([out]), series.values_of)
    for name, text in (
        ("cross_neck.csv", _crossneck_tables.comma_separated(found)),
        ("cross_neck.md", _crossneck_tables.markdown(found)),
    ):
        (out / name).write_text(text, encoding="utf-8")
    _crossneck_tables.save(found, out / "cross_neck.png")
    click.echo(out / "cross_neck.png")


COMMAND = cross_neck
