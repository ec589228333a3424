"""Draw rate-accuracy curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


@click.command("plot")
@results_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="FILE.png, .svg or .pdf")
@overwrite_option
@rate_option()
@published_option
@by_option
@click.option(
    "--metric", help="Another metric than each task's primary one: oks, or feature_snr for rate-distortion curves."
)
@click.option(
    "--anchor", "anchors", multiple=True, metavar="NAME", help="Draw in grey: a codec, or `remote`. Repeatable."
)
@click.option(
    "--grid/--overlay",
    "grid",
    default=None,
    help="One panel per task and encoder, or all encoders in one. [by the number of curves]",
)
@click.option(
    "--complexity",
    is_flag=True,
    help="Times and operations against rate and accuracy, instead of rate against accuracy.",
)
@click.option("--parts", is_flag=True, help="Share of each part of the files.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Repeatable. [all]")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Repeatable. [all]")
@click.option(
    "--codec", "codecs", multiple=True, metavar="NAME", help="Repeatable; `remote` for all image codecs. [all]"
)
def plot(
    results: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    x: str,
    published: tuple[Path, ...],
    by: str | None,
    metric: str | None,
    anchors: tuple[str, ...],
    grid: bool | None,
    complexity: bool,
    parts: bool,
    tasks: tuple[str, ...],
    encoders: tuple[str, ...],
    codecs: tuple[str, ...],
) -> None:
    """Draw rate-accuracy curves of results folders. Runs nothing.

    \b
    Examples:
      fcbench plot runs/default -o curves.pdf --x bpfp
      fcbench plot results/codecs_scenes_standard/hiera_nano -o curves.png --anchor remote --anchor uniform
      fcbench plot results/scenes -o cost.png --complexity --encoder hiera_nano
      fcbench plot runs/default -o parts.png --parts --codec hyperprior
      fcbench plot runs/before runs/after -o both.png --by folder --codec hyperprior
      fcbench plot runs/default -o distortion.png --metric feature_snr
    """
    from fcbench.analysis import distortion, situations
    from fcbench.analysis.published import add
    from fcbench.reports import curves_figure, style
    from fcbench.reports.parts import figure as parts_figure

    if (complexity or parts) and grid is not None or (complexity and parts):
        raise FcbenchError("got two of --complexity, --parts, --grid or --overlay; give one of them.")
    check_outputs([output], [*results, *published], overwrite)
    rows = situations.choose(situations.load(results, by), "task", tasks)
    rows = situations.choose(rows, "encoder", encoders)
    rows = add(distortion.add(situations.choose_codecs(rows, codecs), [metric]), published)
    if complexity:
        figure = curves_figure.complexity(rows, x, metric, anchors=anchors)
    elif parts:
        figure = parts_figure(rows, x)
    else:
        figure = curves_figure.figure(rows, x, metric, anchors=anchors, grid=grid)
    say(style.save(figure, output))


def draw(results: Path, output: Path, tell: Callable[[object], None] = say) -> None:
    """Draw a run, every task's primary metric over bpp; if that fails, say why."""
    from fcbench.reports import curves_figure, style
    from fcbench.results import table

    try:
        tell(style.save(curves_figure.figure(table.load(results)), output))
    except FcbenchError as error:
        tell(f"no {output.name}: {error} (fcbench plot {results} --codec ...)")


COMMAND = plot
