"""What a file holds: a container, a checkpoint, or neither."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from torch import nn

from fcbench.core.errors import FcbenchError
from fcbench.transmit import checkpoint, container
from fcbench.transmit.images import Size


def described(path: Path) -> dict[str, Any]:
    """What an ``.fcb`` file or a codec's checkpoint says of itself, checked whole; plain JSON data. Raises
    `FcbenchError`: neither, or damaged."""
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
    for record in reader:
        sizes.append(len(record.payload))
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
        "n_symbols": symbols,
        "n_scalars": n_scalars,
    }


def _codec(path: Path) -> dict[str, Any]:
    loaded = checkpoint.load(path)
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
