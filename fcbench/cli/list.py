"""List the plug-ins of a kind."""

from __future__ import annotations

import json

import click

from fcbench.cli.say import say
from fcbench.core import registry


@click.command("list")
@click.argument("kind", type=click.Choice([f"{k}s" for k in registry.KINDS]))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_plugins(kind: str, as_json: bool) -> None:
    """List the plug-ins of a kind, built in and installed, with one line each.

    \b
    Example:
      fcbench list codecs
    """
    found = {name: _line(kind[:-1], name) for name in registry.names(kind[:-1])}
    if as_json:
        say(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, line in found.items():
        say(f"{name:{width}}  {line}")


def _line(kind: str, name: str) -> str:
    """Summary of a plug-in; of an outside one also its distribution and version."""
    origin = ", ".join(map(" ".join, registry.origin(kind, name).items()))
    return registry.summary(kind, name) + (f" [{origin}]" if origin else "")


COMMAND = list_plugins
