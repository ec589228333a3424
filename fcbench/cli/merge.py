"""Join results folders of several people or machines."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import results_argument
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError


@click.command("merge")
@results_argument
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New results folder.")
@click.option(
    "--leave-out", is_flag=True, help="Leave out rows not comparable with the first folder, instead of writing nothing."
)
def merge(results: tuple[Path, ...], output: Path, leave_out: bool) -> None:
    """Join results folders into a new one. The first sets the standard; nothing is measured.

    Rows are refused, with the reason, if the data set has another revision, a metric is counted differently, or necks
    and heads were trained differently. Points that are already there are not added twice.

    \b
    Examples:
      fcbench merge results/codecs_camvid theirs -o runs/all
      fcbench merge results/codecs_camvid theirs -o runs/all --leave-out
    """
    from fcbench.analysis import merge as merging

    merged = merging.merge(results)
    for line in merged.refused:
        say(f"refused: {line}", err=True)
    if merged.refused and not leave_out:
        raise FcbenchError(
            f"{len(merged.refused)} situations are not comparable with {results[0]}; nothing was written. "
            "Add --leave-out to write the others."
        )
    merging.write(merged, results, output)
    for path, taken, already in zip(results, merged.taken, merged.already):
        say(f"{path}: {taken} points" + (f", {already} were there already" if already else ""))
    say(output)


COMMAND = merge
