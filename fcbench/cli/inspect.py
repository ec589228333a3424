"""Describe a coded file or a codec's checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fcbench.cli.options import plugin_file_option
from fcbench.cli.say import say
from fcbench.core.errors import one_line


@click.command("inspect")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@plugin_file_option("codec")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def inspect(files: tuple[Path, ...], as_json: bool) -> None:
    """Describe .fcb files and codecs' checkpoints, and check that they are whole.

    \b
    Example:
      fcbench inspect runs/default/streams/*
    """
    from fcbench.transmit import images

    described = [images.inspect(file) for file in files]
    if as_json:
        say(json.dumps(described, indent=1))
        return
    say("\n\n".join(map(_lines, described)))


def _lines(contents: dict[str, Any]) -> str:
    lines = [f"{one_line(contents['file'])}: {contents['kind']}, whole"]
    for name, value in contents.items():
        if name == "maps":
            lines += [f"  {'map':22}  {_map(one)}" for one in value]
        elif name == "parts_bytes":
            lines += [f"  {'bytes':22}  {part}: {n} ({n / contents['n_bytes']:.1%})" for part, n in value.items()]
        elif name not in ("file", "kind"):
            lines.append(f"  {name:22}  {one_line(str(value))}")
    return "\n".join(lines)


def _map(one: dict[str, Any]) -> str:
    sizes = ", ".join(f"{h}x{w}" for h, w in one.get("sizes", []))
    text = f"{one_line(one['name'])}: {one['channels']} channels, stride {one['stride_px']} px, {one['layout']}"
    return f"{text}, {sizes}" if sizes else text


COMMAND = inspect
