"""Write the points of curves for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import by_option, check_outputs, overwrite_option, rate_option, results_argument
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically


@click.command("curves")
@results_argument
@by_option
@click.option(
    "--metric", metavar="NAME", help="`all` for every metric of the tasks; `feature_snr`. [each task's primary metric]"
)
@rate_option("Unit of the rate.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="FILE.csv (as --published reads it), .md, .tex, .txt or .json, instead of the terminal.",
)
@click.option(
    "--compressai",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write CompressAI's results JSON, one file per curve, with bpp and every metric.",
)
@overwrite_option
def curves(
    results: tuple[Path, ...],
    by: str | None,
    metric: str | None,
    x: str,
    output: Path | None,
    compressai: Path | None,
    overwrite: bool,
) -> None:
    """Write every point of the curves of results folders: rate, value, interval, source. Runs nothing.

    \b
    Examples:
      fcbench curves runs/default -o points.csv
      fcbench curves runs/default --metric all -o points.tex
      fcbench curves runs/default --compressai curves
    """
    from fcbench.analysis import distortion, situations
    from fcbench.reports import points_table, tables

    if compressai and (output or metric or x != "bpp"):
        raise FcbenchError("got --compressai with -o, --metric or --x; its files hold bpp and every metric.")
    suffix = tables.check_suffix(output) if output else ".txt"
    check_outputs([output] if output else [], results, overwrite)
    rows = situations.load(results, by)
    rows = distortion.add(rows, [metric])
    if compressai:
        files = {compressai / name: text for name, text in points_table.compressai(rows).items()}
        check_outputs(files, results, overwrite)
        for path, text in files.items():
            write_atomically(path, text, "choose another --compressai")
            say(path)
        return
    text = tables.text(points_table.document(rows, x, metric), suffix, output)
    if output is None:
        say(text, nl=False)
    else:
        write_atomically(output, text, "choose another -o")
        say(output)


COMMAND = curves
