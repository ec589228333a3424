"""Images to an ``.fcb`` file and back to features, with a codec from a run; descriptions of such files.

images -> encoder of the checkpoint -> codec -> .fcb file -> new codec -> features
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fcbench.core import rates
from fcbench.core.codecs import ForeignCodec
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, Features
from fcbench.core.files import write_atomically
from fcbench.core.progress import Advance
from fcbench.data.shared.images import image_size, read_image, resize_image
from fcbench.data.shared.layout import Layout
from fcbench.features.encoding import build_encoder
from fcbench.transmit import container, senders
from fcbench.transmit.checkpoint import Loaded
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.coders import HERE, Coders, Limits, naming

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Coded:
    """Size of a coded set of images; `fcbench.core.rates` turns it into rates."""

    n_samples: int
    n_bytes: int
    n_px: int  # of the original images
    n_scalars: int


def encode(
    images: Sequence[Path],
    checkpoint: Path,
    path: Path,
    *,
    image_size_px: Size | None = None,
    weights: str | None = None,
    device: torch.device = torch.device("cpu"),
    advance: Advance = lambda done, total: None,
) -> Coded:
    """Code images into one file, in their order.

    `images`: files, and folders of them (sorted by name). `checkpoint`: of a codec; it names the encoder. `path`: the
    ``.fcb`` file to write. `image_size_px`: (H, W) to resize the images to; None for their own, which must be equal.
    `weights`: of the encoder, see `fcbench.core.features.EncoderPlugin.build`. Raises `FcbenchError`: an
    image or the checkpoint cannot be read, images of several sizes, weights other than those that the codec was made
    for, features that cannot be coded, a file that cannot be written.
    """
    files = _files(images)
    loaded = load_checkpoint(checkpoint)
    sizes = [image_size(file) for file in files]
    size_px = image_size_px or _one_size(files, sizes)
    encoder = _encoder_of(loaded, checkpoint, weights, device)
    n_scalars = 0

    def samples() -> Iterator[Features]:
        nonlocal n_scalars
        for file in files:
            image = resize_image(read_image(file), size_px)
            maps = encoder(image[None].to(device), [s.name for s in loaded.specs]).maps
            features = Features({name: m.cpu() for name, m in maps.items()})
            n_scalars += features.n_scalars
            yield features

    senders.write(checkpoint, loaded, samples(), len(files), path, advance)
    n_px = sum(h * w for h, w in sizes)
    return Coded(len(files), path.stat().st_size, n_px, n_scalars)


def _files(images: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        files += Layout("images", "DIR/*.jpg or .png").images_in(path) if path.is_dir() else [path]
    return files


def _one_size(files: Sequence[Path], sizes: Sequence[Size]) -> Size:
    for file, size in zip(files, sizes):
        if size != sizes[0]:
            (h, w), (first_h, first_w) = size, sizes[0]
            raise FcbenchError(
                f"images of several sizes: {files[0].name} has {first_h}x{first_w}, {file.name} {h}x{w}; "
                "give --image-size N or HxW"
            )
    return sizes[0]


def _encoder_of(loaded: Loaded, path: Path, weights: str | None, device: torch.device) -> Encoder:
    encoder = build_encoder(loaded.source.encoder, weights, device)
    if encoder.weights.sha256 != loaded.source.weights_sha256:
        raise FcbenchError(
            f"{encoder.name} has weights of sha256 {encoder.weights.sha256[:16]}, the codec {path.name} was made for "
            f"{loaded.source.weights_sha256[:16]}: give the same --weights as to the run"
        )
    return encoder


def decode(path: Path, checkpoint: Path | None = None, trust: bool = False) -> dict[str, Tensor]:
    """Features of a file: float32 [N, C, h, w] by map, in the order in which they were coded.

    `checkpoint`: of its codec; None for the one beside the file, under the same name. `trust`: decode in this process,
    also what a library decodes that is not ours; else that runs in a process of its own, within limits of memory and
    time. Raises `FcbenchError`: either is missing or damaged, they do not belong together, there are no features
    inside, or that process ends.
    """
    reader = container.ContainerReader(path)
    if not int(reader.header.checkpoint_sha256, 16):
        raise FcbenchError(f"{path} holds no features: it was coded by {reader.header.codec}")
    if len({tuple(r.shapes.values()) for r in reader}) > 1:
        raise FcbenchError(f"{path} holds features of several sizes: code images of one size")
    beside = path.with_suffix(".safetensors")
    if checkpoint is None and not beside.is_file():
        raise FcbenchError(f"no checkpoint {beside.name} beside {path}: give --checkpoint FILE")
    checkpoint = checkpoint or beside
    with HERE if trust else apart(load_checkpoint(checkpoint), reader) as coders:
        batches = [r.maps for r in senders.decode(checkpoint, path, coders)]
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}


def apart(loaded: Loaded, reader: container.ContainerReader) -> Coders:
    """What decodes a stranger's file of features: a process within limits where a library does it that is not ours."""
    return within_limits(reader) if isinstance(loaded.codec, ForeignCodec) else HERE


def within_limits(reader: container.ContainerReader) -> Coders:
    """A process that decodes a stranger's file, within limits that the sizes of its samples set."""
    channels = sum(s.channels for s in reader.header.specs)
    return Coders(1, Limits.of(channels * max(h * w for r in reader for h, w in r.shapes.values())))


def write_features(maps: dict[str, Tensor], path: Path) -> None:
    """Write features as a safetensors file. Raises `FcbenchError`: it cannot be written."""
    write_atomically(path, save(maps))


def inspect(path: Path) -> dict[str, Any]:
    """Description of an ``.fcb`` file or a codec's checkpoint, checked completely; plain JSON data. Raises
    `FcbenchError`: another kind of file, or a damaged one."""
    try:
        with path.open("rb") as file:
            start = file.read(len(container.MAGIC))
    except OSError as error:
        raise FcbenchError(f"cannot read {path}: {error.strerror}") from None
    coded = start == container.MAGIC or path.suffix == ".fcb"
    return _stream(path) if coded else _codec(path)


def _stream(path: Path) -> dict[str, Any]:
    reader = container.ContainerReader(path)
    sizes, symbols, n_scalars = [], 0, 0
    channels = {s.name: s.channels for s in reader.header.specs}
    shapes: dict[str, set[Size]] = {name: set() for name in channels}
    parts, loaded = Counter[str](), None
    if (beside := path.with_suffix(".safetensors")).is_file():
        loaded = load_checkpoint(beside)
        reader.verify_checkpoint(loaded.sha256)
        reader.verify_header(senders.header_of(loaded), beside)
    for record in reader:
        sizes.append(len(record.payload))
        parts.update(_parts_of(record, loaded))
        symbols += record.n_symbols
        for name, (h, w) in record.shapes.items():
            shapes[name].add((h, w))
            n_scalars += channels[name] * h * w
    return {
        "file": str(path),
        "kind": "coded samples",
        "codec": reader.header.codec,
        "checkpoint_sha256": reader.header.checkpoint_sha256,
        "maps": [{**asdict(s), "sizes": sorted(shapes[s.name])} for s in reader.header.specs],
        "n_samples": len(reader),
        "n_bytes": reader.n_bytes,
        "payload_bytes": sum(sizes),
        "overhead_bytes": reader.n_bytes - sum(sizes),
        "smallest_bytes": min(sizes, default=0),
        "largest_bytes": max(sizes, default=0),
        "parts_bytes": {**parts, rates.CONTAINER: reader.n_bytes - sum(sizes)},
        "n_symbols": symbols,
        "n_scalars": n_scalars,
    }


def _parts_of(record: container.Record, loaded: Loaded | None) -> dict[str, int]:
    """Bytes of a payload by part; where its codec does not tell, or is not there, only their sum."""
    parts: Mapping[str, bytes] = {}
    if loaded is not None and not isinstance(loaded.codec, ForeignCodec):
        with naming(record.where):
            decoded = loaded.codec.decode(record.payload, record.shapes)
        record.verify(decoded)
        parts = decoded.parts
    return {name: len(data) for name, data in parts.items()} or {"payload": len(record.payload)}


def _codec(path: Path) -> dict[str, Any]:
    loaded = load_checkpoint(path)
    return {
        "file": str(path),
        "kind": "codec checkpoint",
        "codec": loaded.point.label,
        "sha256": loaded.sha256,
        "encoder": loaded.source.encoder,
        "encoder_weights_sha256": loaded.source.weights_sha256,
        "maps": [asdict(s) for s in loaded.specs],
        "n_bytes": path.stat().st_size,
        "n_params": sum(p.numel() for p in cast(nn.Module, loaded.codec).parameters()),
    }
