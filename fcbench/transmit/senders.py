"""Features through a file: written, read back, made features again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fcbench.core.codecs import with_check
from fcbench.core.features import Features
from fcbench.core.progress import Advance
from fcbench.transmit import container
from fcbench.transmit.checkpoint import Loaded
from fcbench.transmit.checkpoint import load as load_checkpoint

EVAL_BATCH = 32


def write(
    loaded: Loaded, samples: Iterable[Features], n_samples: int, path: Path, advance: Advance
) -> tuple[list[int], list[float]]:
    """Code samples into a file, one record each.

    Returns:
        Size [bytes] and time [ms] of each.
    """
    sizes, times = [], []
    header = container.Header(loaded.point.codec, loaded.sha256, loaded.specs)
    with container.ContainerWriter(path, header) as writer, torch.inference_mode():
        for features in samples:
            began = time.perf_counter()
            stream = loaded.codec.encode(features)
            times.append((time.perf_counter() - began) * 1e3)
            writer.append(with_check(stream, loaded.codec, features.shapes), features.shapes)
            sizes.append(len(stream.payload))
            advance(len(sizes), n_samples)
    return sizes, times


def decode(checkpoint: Path, path: Path, times_ms: list[float]) -> Iterator[dict[str, Tensor]]:
    """Batches of features from a file and a checkpoint alone, by a codec of their own."""
    loaded, waiting = load_checkpoint(checkpoint), list[Features]()
    reader = container.ContainerReader(path)
    reader.verify_checkpoint(loaded.sha256)
    for number, record in enumerate(reader, 1):
        began = time.perf_counter()
        decoded = loaded.codec.decode(record.payload, record.shapes)
        times_ms.append((time.perf_counter() - began) * 1e3)
        record.verify(decoded)
        waiting.append(decoded.features)
        if len(waiting) == EVAL_BATCH or number == len(reader):
            yield {name: torch.cat([f.maps[name] for f in waiting]) for name in waiting[0].maps}
            waiting.clear()
