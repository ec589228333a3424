"""Compare codecs with an anchor: BD-rate, BD-accuracy, rate at the ceiling less a loss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fcbench.cli.options import (
    by_option,
    check_outputs,
    overwrite_option,
    published_option,
    rate_option,
    results_argument,
)
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically

if TYPE_CHECKING:
    from fcbench.analysis.curves import Loss

FORMATS = {"table": ".txt", "csv": ".csv", "markdown": ".md", "latex": ".tex"}
"""Name of a format -> its file suffix."""


@click.command("compare")
@results_argument
@click.option(
    "--anchor",
    metavar="NAME",
    help="A codec; or `remote`: the best codec of remote inference. [with --by: each codec in the first run]",
)
@published_option
@by_option
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Repeatable; `all` for every metric of the tasks; `feature_snr`, the SNR of decoded features [dB]. [each "
    "task's primary metric]",
)
@rate_option("Unit of the rate.")
@click.option(
    "--loss",
    metavar="N%|Npt",
    default="1%",
    show_default=True,
    callback=lambda _, __, typed: _loss(typed),
    help="Loss from the uncoded ceiling at which the rate is read: percent of it, or points of accuracy.",
)
@click.option("--parts", is_flag=True, help="Show which parts of the files make up the rate at the target.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="[by the suffix of -o; table on the terminal]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="FILE.csv, .md, .tex, .txt or .json, instead of the terminal.",
)
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def compare(
    results: tuple[Path, ...],
    anchor: str | None,
    published: tuple[Path, ...],
    by: str | None,
    metrics: tuple[str, ...],
    x: str,
    loss: Loss,
    parts: bool,
    form: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare every curve of results folders with the anchor's, or the same codec in several runs.
    Runs nothing.

    BD-rate and BD-accuracy with 95 % intervals (paired bootstrap over the test samples), the overlap of the curves, and
    the rate at which the uncoded ceiling less --loss is reached. Numbers that would be meaningless are withheld, with
    the reason; failed points are counted.

    \b
    Examples:
      fcbench compare runs/default --anchor uniform
      fcbench compare results/codecs_camvid --anchor hyperprior --metric all -o camvid.tex
      fcbench compare results/codecs_camvid --published others.csv --anchor "elic of others (published)"
      fcbench compare runs/before runs/after --by folder
      fcbench compare runs/default --anchor uniform --metric feature_snr
    """
    from fcbench.analysis import compare as comparing
    from fcbench.analysis import distortion, situations
    from fcbench.analysis.parts import at_targets
    from fcbench.analysis.published import add
    from fcbench.reports import compare_table
    from fcbench.reports import parts as parts_tables
    from fcbench.reports import tables

    if anchor is None and by is None:
        raise click.UsageError("Missing option '--anchor'; without one, --by compares each codec in several runs.")
    if anchor is None and published:
        raise click.UsageError("--published needs --anchor: published curves have no runs.")
    if as_json and form:
        raise FcbenchError("got both --json and --format; give one of them.")
    suffix = ".json" if as_json else FORMATS[form] if form else tables.check_suffix(output) if output else ".txt"
    check_outputs([output] if output else [], [*results, *published], overwrite)
    rows = add(distortion.add(situations.load(results, by), metrics), published)
    comparisons, notes = comparing.compare(rows, anchor, metrics, x, loss=loss)
    if parts:
        document = parts_tables.document(at_targets(rows, comparisons), notes)
    else:
        document = compare_table.document(comparisons, notes, loss)
    text = tables.text(document, suffix, output)
    if output is None:
        say(text, nl=False)
        return
    write_atomically(output, text, "choose another -o")
    say(output)
    for note in notes:
        say(note, err=True)


def _loss(typed: str) -> Loss:
    from fcbench.analysis.curves import Loss

    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(%|pt)", typed.strip())
    if not match:
        raise click.BadParameter(f"{typed!r} is neither a percentage (1%) nor points (1pt).")
    return Loss(float(match[1]), "%" if match[2] == "%" else "pt")


COMMAND = compare
