"""Name the plug-ins of a kind."""

from __future__ import annotations

import json

import click

from fcbench.core import registry


@click.command("list")
@click.argument("kind", type=click.Choice([f"{k}s" for k in registry.KINDS]))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_plugins(kind: str, as_json: bool) -> None:
    """Name the plug-ins of a kind, with a line on each.

    \b
    Example:
      fcbench list codecs
    """
    found = {name: registry.summary(kind[:-1], name) for name in registry.names(kind[:-1])}
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        click.echo(f"{name:{width}}  {summary}")


COMMAND = list_plugins
