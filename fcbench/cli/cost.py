"""What an encoder's specialization costs: accuracy, bits, usable information."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import rate_option, results_argument
from fcbench.core.errors import FcbenchError


@click.command("cost")
@results_argument
@click.option("--general", required=True, metavar="ENCODER", help="What is lost from.")
@click.option("--special", required=True, metavar="ENCODER", help="What it costs.")
@rate_option("Unit of the rate.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="FILE.csv, .md, .txt, .json, or .png, .svg, .pdf; repeatable; instead of the terminal.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def cost(
    results: tuple[Path, ...], general: str, special: str, x: str, outputs: tuple[Path, ...], as_json: bool
) -> None:
    """Set a special encoder against a general one, task by task. Runs nothing.

    With 95 % intervals: the accuracy difference uncoded, the extra bits at equal accuracy and the accuracy at equal
    bits for each codec, and usable information in bits per image where the run wrote log-likelihoods. A figure that
    would mean nothing is refused with its reason.

    \b
    Examples:
      fcbench cost runs/default --general hiera_nano --special sam2_nano
      fcbench cost runs/default --general hiera_nano --special sam2_nano -o cost.md -o cost.png
    """
    from fcbench.analysis import cost as costing
    from fcbench.analysis import situations
    from fcbench.reports import cost_figure, cost_table

    known = (*cost_table.FORMATS, *cost_figure.SUFFIXES)
    for output in outputs:
        if output.suffix.lower() not in known:
            raise FcbenchError(
                f"cannot tell the format of {output.name!r}; its suffix must be one of {', '.join(known)}."
            )
    found = costing.costs(situations.load(results), general, special, x, situations.values_of)
    if as_json:
        click.echo(cost_table.as_json(found), nl=False)
    elif not outputs:
        click.echo(cost_table.terminal(found), nl=False)
    for output in outputs:
        suffix = output.suffix.lower()
        try:
            if suffix in cost_figure.SUFFIXES:
                cost_figure.save(found, output)
            else:
                writer = cost_table.FORMATS[suffix]
                output.write_text(writer(found), encoding="utf-8")
        except OSError as error:
            raise FcbenchError(f"cannot write {output}: {error.strerror}; choose another -o.") from error
        click.echo(output, err=as_json)


COMMAND = cost
