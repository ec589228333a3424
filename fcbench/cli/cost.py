"""Price an encoder's specialization: accuracy, bits, usable information."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import check_outputs, overwrite_option, rate_option, results_argument
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically


@click.command("cost")
@results_argument
@click.option("--general", required=True, metavar="ENCODER", help="Encoder to compare against.")
@click.option("--special", required=True, metavar="ENCODER", help="Encoder whose specialization is priced.")
@rate_option("Unit of the rate.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="FILE.csv, .md, .tex, .txt, .json, or .png, .svg, .pdf; repeatable; instead of the terminal.",
)
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def cost(
    results: tuple[Path, ...],
    general: str,
    special: str,
    x: str,
    outputs: tuple[Path, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare a special encoder with a general one, task by task. Runs nothing.

    With 95 % intervals: the accuracy difference uncoded, the extra bits at equal accuracy and the accuracy at equal
    bits for each codec, and usable information in bits per image if the run wrote log-likelihoods. Numbers that would
    be meaningless are withheld, with the reason.

    \b
    Examples:
      fcbench cost runs/default --general hiera_nano --special sam2_nano
      fcbench cost runs/default --general hiera_nano --special sam2_nano -o cost.md -o cost.png
    """
    from fcbench.analysis import cost as costing
    from fcbench.analysis import situations
    from fcbench.reports import cost_figure, cost_table, style, tables

    suffixes = [tables.check_suffix(output, (*tables.WRITERS, *style.SUFFIXES)) for output in outputs]
    if general == special:
        raise FcbenchError(f"got {general!r} as --general and as --special: give two encoders")
    check_outputs(outputs, results, overwrite)
    costs = costing.costs(situations.load(results), general, special, x)
    document = cost_table.document(costs)
    if as_json or not outputs:
        say((tables.as_json if as_json else tables.terminal)(document), nl=False)
    for output, suffix in zip(outputs, suffixes):
        if suffix in style.SUFFIXES:
            style.save(cost_figure.draw(costs), output)
        else:
            write_atomically(output, tables.WRITERS[suffix](document), "choose another -o")
        say(output, err=as_json)


COMMAND = cost
