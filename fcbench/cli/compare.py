"""Set codecs against an anchor: BD-rate, BD-accuracy, rate at the ceiling less 1 %."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import rate_option, results_argument
from fcbench.core.errors import FcbenchError

FORMATS = ("table", "csv", "markdown", "latex")


@click.command("compare")
@results_argument
@click.option(
    "--anchor", required=True, metavar="NAME", help="A codec; or `remote`: remote inference, the best of its codecs."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Repeatable; `all` for every one. [each task's primary one]",
)
@rate_option("Unit of the rate.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[by the suffix of -o; table on the terminal]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="FILE.csv, .md, .tex, .txt or .json, instead of the terminal.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def compare(
    results: tuple[Path, ...],
    anchor: str,
    metrics: tuple[str, ...],
    x: str,
    form: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Set every curve of results folders against the anchor's. Runs nothing.

    BD-rate and BD-accuracy with 95 % intervals (paired bootstrap over the test samples), what the curves have in
    common, and the rate at which the uncoded ceiling less 1 % is reached. A figure that would mean nothing is refused
    with its reason; points that failed are counted.

    \b
    Examples:
      fcbench compare runs/default --anchor uniform
      fcbench compare results/codecs_camvid --anchor hyperprior --metric all -o camvid.tex
    """
    from fcbench.analysis import compare as comparing
    from fcbench.analysis import situations
    from fcbench.reports import compare_table

    writer = compare_table.FORMATS[_format(form, output, as_json, compare_table.SUFFIXES)]
    rows = situations.load(results)
    found, notes = comparing.compare(rows, anchor, metrics, x, situations.values_of)
    text = writer(found, notes)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FcbenchError(f"cannot write {output}: {error.strerror}; choose another -o.") from error
    click.echo(output)
    for note in notes:
        click.echo(note, err=True)


def _format(form: str | None, output: Path | None, as_json: bool, suffixes: dict[str, str]) -> str:
    """What the options ask for. Raises `FcbenchError` for a suffix that names no format."""
    if as_json and form:
        raise FcbenchError("got both --json and --format; give one of them.")
    if as_json or form:
        return "json" if as_json else str(form)
    if output is None:
        return "table"
    if output.suffix.lower() not in suffixes:
        raise FcbenchError(
            f"cannot tell the format of {output.name!r}; its suffix must be one of {', '.join(suffixes)}, "
            "or give --format."
        )
    return suffixes[output.suffix.lower()]


COMMAND = compare
