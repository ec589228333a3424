"""Decode the features of a coded file."""

from __future__ import annotations

from pathlib import Path

import click

from fcbench.cli.options import check_outputs, overwrite_option, plugin_file_option, trust_option
from fcbench.cli.say import say
from fcbench.core.errors import FcbenchError


@click.command("decode")
@click.argument("file", metavar="FILE.fcb", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Codec's checkpoint. [beside the file, with the same name]"
)
@plugin_file_option("codec")
@trust_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.safetensors")
@overwrite_option
def decode(file: Path, checkpoint: Path | None, trust: bool, output: Path, overwrite: bool) -> None:
    """Decode an .fcb file: features, float32 [N, C, h, w] per map, in the order of the images.

    \b
    Example:
      fcbench decode photo.fcb --checkpoint runs/strata/streams/*.safetensors -o features.safetensors
    """
    from fcbench.transmit import images

    beside = file.with_suffix(".safetensors")
    check_outputs([output], [file, checkpoint or beside], overwrite)
    if output.absolute() == beside.absolute():
        raise FcbenchError(f"{output} would be taken for the checkpoint of {file.name}: choose another -o")
    maps = images.decode(file, checkpoint, trust)
    images.write_features(maps, output)
    shapes = ", ".join(f"{name} {list(m.shape)}" for name, m in maps.items())
    say(f"{output}: {shapes}")


COMMAND = decode
