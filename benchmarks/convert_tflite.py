"""Published weights for ``mobilenetv2:NAME`` as a ``.safetensors`` file, which needs no ai-edge-litert to be read.

    python -m benchmarks.convert_tflite mobilenet_v2_1.0_224_quant.tflite -o imagenet.safetensors --images PHOTOGRAPHS
    fcbench run --encoder mobilenetv2:imagenet --weights imagenet.safetensors

Integers become float32 under timm's names; of a classifier, the last layer is left out. What was written is then
compared with the file's own interpreter, which computes in 8 bits, on every .jpg and .png below PHOTOGRAPHS, each
resized (bilinear) to the network's input: the last map of the trunk, and the class of the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.encoders.mobilenetv2 import PLUGIN, PUBLISHED, load
from fcbench.encoders.mobilenetv2.tflite import layers_of, state_of
from fcbench.encoders.shared.weights import file_sha256, freeze

PHOTOGRAPHS = (".jpg", ".jpeg", ".png")


class Agreement(NamedTuple):
    """Of 32-bit and 8-bit networks on images."""

    difference: float  # norm of the difference of the trunks' last maps, over that of the 8-bit one
    correlation: float  # of all values of these maps
    same_class: int | None  # images on which both classifiers name the same class; None: no classifier
    n_images: int


def name_of(source: Path) -> str:
    """What is typed after ``mobilenetv2:`` for a published file. Raises `FcbenchError`: it is none of them."""
    found = [name for name, p in PUBLISHED.items() if p.sha256 == file_sha256(source)]
    if not found:
        known = ", ".join(p.file for p in PUBLISHED.values())
        raise FcbenchError(f"{source} is none of the published files, by its SHA-256: {known}")
    return found[0]


def convert(source: Path, target: Path) -> None:
    """Write the float32 tensors of a published file, without its classifier."""
    published = PUBLISHED[name_of(source)]
    network = published.whole(published.trunk()) if published.n_classes else published.trunk()
    state = state_of(source, network, str(source))
    kept = {n: t.contiguous() for n, t in state.items() if not n.startswith("classifier.")}
    write_atomically(target, save(kept))


def compare(source: Path, target: Path, images: Sequence[Path]) -> Agreement:
    """The network of a converted file against the interpreter of its source, on images."""
    from ai_edge_litert.interpreter import Interpreter

    name = name_of(source)
    published, encoder = PUBLISHED[name], PLUGIN.build(name, str(target), torch.device("cpu"))
    n_layers = sum(isinstance(m, torch.nn.Conv2d) for m in encoder.module.modules())
    trunk_end = layers_of(source)[n_layers - 1].output
    whole = freeze(published.whole(published.trunk())) if published.n_classes else None
    if whole:
        load(whole, name, (source, ""))
    interpreter = Interpreter(str(source), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    in_8_bits = {d["index"]: d["quantization"] for d in interpreter.get_tensor_details()}
    ours, theirs, n_same = [], [], 0
    for path in images:
        image = np.asarray(Image.open(path).convert("RGB").resize(given["shape"][2:0:-1], Image.Resampling.BILINEAR))
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        ours.append(encoder(batch, ["stage4"]).maps["stage4"].flatten())
        scale, zero = in_8_bits[trunk_end]
        integers = interpreter.get_tensor(trunk_end).transpose(0, 3, 1, 2).astype(np.float32)
        theirs.append(torch.from_numpy((integers - zero) * scale).flatten())
        if whole:
            scores = interpreter.get_tensor(output["index"])[0, -published.n_classes :]
            n_same += int(scores.argmax()) == int(whole(batch / 127.5 - 1).argmax())
    a, b = torch.cat(ours), torch.cat(theirs)
    correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    return Agreement(float((a - b).norm() / b.norm()), correlation, n_same if whole else None, len(images))


@click.command(help=__doc__.split("\n")[0] if __doc__ else None)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "target", type=click.Path(path_type=Path), required=True, help="The .safetensors file.")
@click.option("--images", type=click.Path(path_type=Path, exists=True), help="Folder of photographs to compare on.")
def main(source: Path, target: Path, images: Path | None) -> None:
    convert(source, target)
    click.echo(f"{target}: mobilenetv2:{name_of(source)}, SHA-256 {file_sha256(target)}")
    found = sorted(p for p in images.rglob("*") if p.suffix.lower() in PHOTOGRAPHS) if images else []
    if images and not found:
        raise FcbenchError(f"no {', '.join(PHOTOGRAPHS)} below {images}: give a folder of photographs")
    if found:
        a = compare(source, target, found)
        same = "" if a.same_class is None else f"; the same class on {a.same_class}"
        click.echo(
            f"{a.n_images} images: last map of the trunk {a.difference:.3f} from the 8-bit interpreter's "
            f"(relative norm), correlation {a.correlation:.4f}{same}"
        )


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (FcbenchError, click.ClickException) as error:
        raise SystemExit(f"Error: {error}") from None
