"""The test set through a file: written, read back, made features again. One function a kind of point.

Everything that is coded, be it features, images or labels, goes through the same ``.fcb`` container: the rate is the
size of that file.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fcbench.coders.strings import checksum
from fcbench.core import rates, registry
from fcbench.core.codecs import Bitstream, Decoded, EstimatingCodec
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec
from fcbench.core.kinds import CEILING, FLOOR, LABELS, REMOTE, codec_kind
from fcbench.core.progress import Advance
from fcbench.core.tasks import Head
from fcbench.measure.bench import Bench
from fcbench.measure.points import Job
from fcbench.transmit import container
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.senders import EVAL_BATCH, decode, write

IMAGE_BATCH = 8
_NO_CHECKPOINT = "0" * 64
_IMAGE, _LABEL = FeatureSpec("image", 3, 1), FeatureSpec("label", 1, 1)


@dataclass(frozen=True, slots=True)
class Coding:
    """What coding the test set came to, and the decoded features' way to the tasks."""

    n_bytes: int
    sample_bytes: Sequence[int]
    decoded: Iterator[dict[str, Tensor]]  # batches, in the order of the store
    estimated_bits: float | None = None
    checkpoint: Path | None = None
    checkpoint_sha256: str = ""
    encode_ms: float | None = None
    decode_ms: list[float] = field(default_factory=list)


def code(bench: Bench, job: Job, path: Path) -> Coding:
    """Code the test set; what is decoded is made as it is asked for."""
    if job.kind == CEILING:
        return _uncoded(bench)
    if job.kind == FLOOR:
        return _mean(bench)
    what = f"{bench.encoder.name}: {job.point.label}, coding"
    if job.kind == REMOTE:
        with bench.report.part(what) as advance:
            return _images(bench, job, path, advance)
    if job.kind == LABELS:
        with bench.report.part(what) as advance:
            return _labels(bench, job.tasks[0], path, advance)
    checkpoint = bench.codec(job.point, job.fitted_to)
    with bench.report.part(what) as advance:
        sizes, bits, encode_ms, sha256 = encode(bench, checkpoint, path, advance)
    decode_ms: list[float] = []
    decoded = decode(checkpoint, path, decode_ms)
    return Coding(path.stat().st_size, sizes, decoded, bits, checkpoint, sha256, encode_ms, decode_ms)


# ------------------------------------------------------------------------------------- ends of a curve
def _batches(n: int, size: int = EVAL_BATCH) -> list[range]:
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


def _uncoded(bench: Bench) -> Coding:
    store = bench.test.store
    n_bytes = rates.uncoded_bytes(store.n_points, 32)
    each = [n_bytes // len(store)] * len(store)
    return Coding(n_bytes, each, (store.batch(b) for b in _batches(len(store))))


def _mean(bench: Bench) -> Coding:
    store = bench.test.store
    mean = {n: s.mean.view(1, -1, 1, 1) for n, s in bench.stats.items()}
    shapes = store.shapes
    flat = ({n: m.expand(len(b), -1, *shapes[n]) for n, m in mean.items()} for b in _batches(len(store)))
    return Coding(0, [0] * len(store), flat)


# -------------------------------------------------------------------------------------------- features
def encode(bench: Bench, checkpoint: Path, path: Path, advance: Advance) -> tuple[list[int], float | None, float, str]:
    """Code the test set.

    Returns:
        Record sizes [bytes]; estimated bits, None where the codec has no model to estimate with; median time [ms];
        the checkpoint's sha256.
    """
    loaded, store = load_checkpoint(checkpoint), bench.test.store
    codec = loaded.codec
    each = (store.maps(i) for i in range(len(store)))
    sizes, times = write(loaded, each, len(store), path, advance)
    bits = 0.0
    with torch.inference_mode():
        for batch in _batches(len(store)) if isinstance(codec, EstimatingCodec) else []:
            bits += float(codec.estimate_bits(store.batch(batch)).sum())
    typical = float(np.median(times[1:] or times))
    return sizes, bits if isinstance(codec, EstimatingCodec) else None, typical, loaded.sha256


# ---------------------------------------------------------------------------------------------- images
def _images(bench: Bench, job: Job, path: Path, advance: Advance) -> Coding:
    """Remote inference: images coded and decoded, then the same encoder."""
    plugin = registry.get("image", codec_kind(job.point.codec)[1])
    data = bench.test.dataset
    header = container.Header(job.point.codec, _NO_CHECKPOINT, (_IMAGE,))
    sizes, times = [], []
    with container.ContainerWriter(path, header) as writer:
        for i in range(len(data)):
            image = data[i].image.numpy()
            began = time.perf_counter()
            payload = plugin.encode(image, job.point.params)
            times.append((time.perf_counter() - began) * 1e3)
            seen = plugin.decode(payload)
            stream = Bitstream({"image": payload}, seen.size, _check(seen))
            writer.append(stream, {_IMAGE.name: seen.shape[1:]})
            sizes.append(len(payload))
            advance(i + 1, len(data))
    decode_ms: list[float] = []
    decoded = _encoded_again(bench, plugin, path, decode_ms)
    return Coding(
        path.stat().st_size, sizes, decoded, encode_ms=float(np.median(times[1:] or times)), decode_ms=decode_ms
    )


def _encoded_again(bench: Bench, plugin: Any, path: Path, times_ms: list[float]) -> Iterator[dict[str, Tensor]]:
    """Features of the images in a file."""
    waiting: list[Tensor] = []
    reader = container.ContainerReader(path)
    for number, record in enumerate(reader, 1):
        began = time.perf_counter()
        image = plugin.decode(record.payload)
        times_ms.append((time.perf_counter() - began) * 1e3)
        tensor = torch.from_numpy(image)
        features = Features({_IMAGE.name: tensor[None]})
        record.verify(Decoded(features, image.size, _check(image)))
        waiting.append(tensor)
        if len(waiting) == IMAGE_BATCH or number == len(reader):
            maps = bench.encoder(torch.stack(waiting), bench.splits).maps
            yield {name: m.cpu() for name, m in maps.items()}
            waiting.clear()


def _check(image: np.ndarray) -> int:
    return checksum(image.reshape(-1).astype(np.int32))


# ---------------------------------------------------------------------------------------------- labels
def _labels(bench: Bench, task_name: str, path: Path, advance: Advance) -> Coding:
    """What the head makes of uncoded features, coded without loss: the task's own output instead of features."""
    plugin, store = registry.get("label", task_name), bench.test.store
    task, model = bench.readout(task_name)
    head = cast(Head, model.head)
    targets = bench.targets("test", task_name)
    header = container.Header("label", _NO_CHECKPOINT, (_LABEL,))
    sizes, times = [], []
    with container.ContainerWriter(path, header) as writer, torch.inference_mode():
        for i in range(len(store)):
            batch = task.collate(targets([i]))
            x = model(store.batch([i]))
            output = plugin.output(head.predict(x, batch))
            began = time.perf_counter()
            payload = plugin.encode(output)
            times.append((time.perf_counter() - began) * 1e3)
            if not plugin.same(plugin.decode(payload), output):
                raise FcbenchError(f"label coding of {task_name} is not lossless for sample {store.ids[i]}")
            check = zlib.crc32(payload) & 0xFFFF
            writer.append(Bitstream({"label": payload}, 1, check), {_LABEL.name: (1, 1)})
            sizes.append(len(payload))
            advance(i + 1, len(store))
    return Coding(
        path.stat().st_size,
        sizes,
        (store.batch(b) for b in _batches(len(store))),
        encode_ms=float(np.median(times[1:] or times)),
    )
