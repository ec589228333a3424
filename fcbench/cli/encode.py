"""Code the features of images into a file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fcbench.cli.options import Size, check_outputs, overwrite_option, plugin_file_option
from fcbench.cli.say import say


@click.command("encode")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(path_type=Path),
    help="Checkpoint of a codec, from `fcbench run --keep-streams`; it names the encoder.",
)
@plugin_file_option("codec")
@plugin_file_option("encoder")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.fcb")
@overwrite_option
@click.option("--image-size", type=Size(), help="Resize the images to this. [their own]")
@click.option("--weights", metavar="random|FILE", help="Weights of the encoder. [official or embedded]")
@click.option("--device", default="auto", metavar="NAME", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def encode(
    images: tuple[Path, ...],
    checkpoint: Path,
    output: Path,
    overwrite: bool,
    image_size: tuple[int, int] | None,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Code the features of images, or of folders of images, into one .fcb file.

    \b
    Example:
      fcbench run --codec strata --encoder sam2_nano --lambdas 0.8 --keep-streams --out runs/strata
      fcbench encode photo.jpg --image-size 224 --checkpoint runs/strata/streams/*.safetensors -o photo.fcb
    """
    from fcbench.core import rates
    from fcbench.core.progress import Report
    from fcbench.measure.study import device_of
    from fcbench.transmit.images import encode as encode_images

    check_outputs([output], [*images, checkpoint, Path(weights) if weights else None], overwrite)
    with Report(1) as report, report.part("coding") as advance:
        coded = encode_images(
            images,
            checkpoint,
            output,
            image_size_px=image_size,
            weights=weights,
            device=device_of(device),
            advance=advance,
        )
    found = {
        "n_samples": coded.n_samples,
        "n_bytes": coded.n_bytes,
        "bpp": rates.bpp(coded.n_bytes, coded.n_px),
        "bpfp": rates.bpfp(coded.n_bytes, coded.n_scalars),
    }
    if as_json:
        say(json.dumps({"file": str(output), **found}))
        return
    say(f"{output}: {coded.n_samples} samples, {coded.n_bytes} bytes, {found['bpp']:.4g} bpp, {found['bpfp']:.4g} bpfp")


COMMAND = encode
