"""Cross-neck analysis: what adapting features to one task costs the others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fcbench.cli.say import say
from fcbench.cli.suite_options import machine_options, suite_of, suite_options
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically


@click.command("cross-neck")
@suite_options(
    tasks="Repeatable; at least two. [all four]",
    codecs="Codec to measure before the first neck and between the two. Repeatable. [none]",
    neck="Each neck of a chain. [neck_2L]",
    objective=None,
)
@machine_options("runs/cross-neck")
@click.option("--length", type=click.IntRange(2, 3), default=2, show_default=True, help="Most necks in a chain.")
def cross_neck(
    suite_file: Path | None,
    out: Path,
    cache_dir: Path,
    device: str,
    threads: int | None,
    coding_workers: int,
    length: int,
    **options: Any,
) -> None:
    """Train task B's neck on the output of task A's frozen neck, for every ordered pair: what is left of B?

    Writes OUT/rates.csv as points are done, and OUT/cross_neck.csv, .md and .png: value, ratio to the direct neck and
    usable bits lost, with 95 % intervals; controls are the same task twice, and one neck with the depth of both. The
    same command resumes where it stopped.

    \b
    Examples:
      fcbench cross-neck --quick --out runs/look
      fcbench cross-neck --encoder sam2_nano --length 3
      fcbench cross-neck --task depth --task pose --codec hyperprior
    """
    suite = suite_of(suite_file, options).runnable(partial(say, err=True))
    coded = bool(options["codecs"])
    import torch

    from fcbench.measure.cross_neck import measure
    from fcbench.measure.study import device_of, open_study
    from fcbench.transmit.coders import Coders

    if threads:
        torch.set_num_threads(threads)
    study = open_study(suite, cache_dir, device_of(device))
    with Coders(coding_workers) as study.coders:
        summary = measure(study, out, length=length, coded=coded)
    say(f"measured {summary.n_measured} points; {summary.n_found} were already in {out}")
    write(out)
    if summary.failures:
        raise FcbenchError(f"{len(summary.failures)} jobs failed, first: {summary.failures[0]}")


def write(out: Path) -> None:
    """Write the matrices of a results folder beside its rows: CSV, Markdown, heat maps."""
    from fcbench.analysis import situations
    from fcbench.analysis.cross_neck import matrices
    from fcbench.reports import cross_neck_figure, cross_neck_table, style, tables

    result = matrices(situations.load([out]))
    document = cross_neck_table.document(result)
    for suffix in (".csv", ".md"):
        write_atomically(out / f"cross_neck{suffix}", tables.WRITERS[suffix](document), "choose another --out")
    say(style.save(cross_neck_figure.draw(result), out / "cross_neck.png"))


COMMAND = cross_neck
