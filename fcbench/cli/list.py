"""List the plug-ins of a kind, or the columns of rates.csv."""

from __future__ import annotations

import json

import click

from fcbench.cli.say import say
from fcbench.core import registry
from fcbench.core.verified import VERIFIED

COLUMNS = "columns"


@click.command("list")
@click.argument("kind", type=click.Choice([*(f"{k}s" for k in registry.KINDS), COLUMNS]))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_plugins(kind: str, as_json: bool) -> None:
    """List the plug-ins of a kind, built in and installed, or the columns of rates.csv. Below a built-in plug-in it
    says how the plug-in was verified; below an encoder, its tails (`run --head tail`): for which tasks, at which split
    points.

    \b
    Examples:
      fcbench list codecs
      fcbench list columns
    """
    names = registry.names(kind[:-1]) if kind != COLUMNS else ()
    lines = {name: _line(kind[:-1], name) for name in names} or _columns()
    if as_json:
        say(json.dumps(lines, indent=1))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        say(f"{name:{width}}  {line}")
        if rest := registry.tails(kind[:-1], name) if names else "":
            say(f"{'':{width}}  {rest}")
        if verified := VERIFIED.get(kind[:-1], {}).get(name):
            say(f"{'':{width}}  verified: {verified}")


def _line(kind: str, name: str) -> str:
    """Summary of a plug-in; for an outside one also its distribution and version."""
    origin = ", ".join(map(" ".join, registry.origin(kind, name).items()))
    return registry.summary(kind, name) + (f" [{origin}]" if origin else "")


def _columns() -> dict[str, str]:
    """Name of each column of rates.csv -> its meaning, its type, and the first schema that has it."""
    from fcbench.results.row import COLUMNS, READ_SCHEMAS, type_name

    return {
        name: f"{c.text} [{type_name(c.type)}" + (f", since schema {c.since}]" if c.since > READ_SCHEMAS[0] else "]")
        for name, c in COLUMNS.items()
    }


COMMAND = list_plugins
