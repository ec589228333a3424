"""Write a trained codec as torch.export programs."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import Size, plugin_file_option
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@plugin_file_option("codec")
@click.option("--image-size", required=True, type=Size(), help="Size of the encoder's input, which programs fix.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="DIR, new or empty.")
def export(checkpoint: Path, image_size: tuple[int, int], output: Path) -> None:
    """Write a codec's networks as torch.export programs with its integer tables as buffers, and codec.json.

    Programs are read back and must give the same bytes, integers and features as the codec. The docstring of
    fcbench.codecs.shared.programs lists their inputs and outputs.

    \b
    Example:
      fcbench export runs/a/streams/*.safetensors --image-size 128 -o exported
    """
    from fcbench.transmit.export import export as export_codec

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FcbenchError(f"{output} is not an empty folder: choose another -o")
    for path in export_codec(checkpoint, image_size, output):
        say(path)


COMMAND = export
