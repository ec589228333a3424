"""Draw rate-accuracy curves."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plot")
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.png, .svg or .pdf",
)
@click.option(
    "--x",
    "x",
    type=click.Choice(["bpp", "bpfp", "bytes_per_sample"]),
    default="bpp",
    show_default=True,
)
@click.option("--metric", help="Another metric than each task's primary one, e.g. oks.")
def plot(results: Path, output: Path, x: str, metric: str | None) -> None:
    """Draw rate-accuracy curves of a results folder. Runs nothing.

    \b
    Example:
      fcbench plot runs/default -o curves.pdf --x bpfp
    """
    draw(results, output, x, metric)


def draw(
    results: Path, output: Path, x: str = "bpp", metric: str | None = None
) -> None:
    from fcbench import plot as drawing
    from fcbench import results as rows

    click.echo(
        drawing.save(drawing.figure(rows.load(results), x=x, metric=metric), output)
    )


COMMAND = plot
