"""The ways of sending a test set: one class per kind of point.

Everything that is coded, be it features, images or labels, goes through the same ``.fcb`` container: the rate is the
size of that file.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fcbench.coders.strings import checksum
from fcbench.core import rates, registry
from fcbench.core.codecs import Bitstream, Decoded, EstimatingCodec, OperatingPoint, codec_kind
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, Features, FeatureSpec, FeatureStats
from fcbench.core.progress import Advance
from fcbench.core.samples import Dataset
from fcbench.features.feature_set import FeatureSet, batches_of
from fcbench.transmit import container
from fcbench.transmit.checkpoint import Loaded
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.coders import HERE, Coders, timed

T = TypeVar("T")
EVAL_BATCH = 32  # Samples per batch; fewer if together they exceed `EVAL_BYTES`
EVAL_BYTES = 256 << 20
IMAGE_BATCH = 8
_NO_CHECKPOINT = "0" * 64
_IMAGE, _LABEL = FeatureSpec("image", 3, 1), FeatureSpec("label", 1, 1)


@dataclass(frozen=True, slots=True)
class Sent:
    """Size and timing of the coded test set."""

    n_bytes: int  # size of the file
    sample_bytes: Sequence[int]  # size of each sample's payload
    parts: Mapping[str, int] = field(default_factory=dict)  # bytes of the file by part; empty if nothing is coded
    estimated_bits: float | None = None  # from likelihoods; None if the codec has none
    encode_ms: float | None = None  # median per sample; None if nothing is coded


@dataclass(frozen=True, slots=True)
class Received:
    """A batch of received maps [B, C, h, w], with the decoding time of each sample. `exact`: they are those of the test
    set, which then need not be read again for the error."""

    maps: Mapping[str, Tensor]
    decode_ms: Sequence[float] = ()
    exact: bool = False


class Sender(Protocol):
    """A way of sending the test set."""

    def send(self, path: Path, advance: Advance) -> Sent:
        """Code the test set into a file. If nothing is coded, no file is written."""

    def receive(self, path: Path) -> Iterator[Received]:
        """Batches of features in the order of the test set, from the file and the receiver's own data."""

    def code_one(self) -> Callable[[], object] | None:
        """A call that codes and decodes the first sample, read beforehand; None if nothing is coded."""


# ------------------------------------------------------------------------------------- ends of a curve
@dataclass(frozen=True, slots=True)
class Uncoded:
    """Uncoded float32 features: the ceiling of a curve."""

    test: FeatureSet

    def send(self, path: Path, advance: Advance) -> Sent:
        n_bytes, n = rates.uncoded_bytes(self.test.n_scalars), len(self.test)
        return Sent(n_bytes, [n_bytes // n] * n)

    def receive(self, path: Path | None = None) -> Iterator[Received]:
        return (Received(maps, exact=True) for maps in _batches(self.test))

    def code_one(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class TrainingMean:
    """Every feature replaced by its mean over the training split: the floor of a curve."""

    test: FeatureSet
    stats: Mapping[str, FeatureStats]

    def send(self, path: Path, advance: Advance) -> Sent:
        return Sent(0, [0] * len(self.test))

    def receive(self, path: Path) -> Iterator[Received]:
        means = {n: s.mean.view(1, -1, 1, 1) for n, s in self.stats.items()}
        for indices in batches_of(len(self.test), at_once(self.test.n_scalars // len(self.test))):
            yield Received({n: m.expand(len(indices), -1, *self.test.grids[n]) for n, m in means.items()})

    def code_one(self) -> None:
        return None


# -------------------------------------------------------------------------------------------- features
class CodecSender:
    """Features coded by a codec. The receiver builds a codec of its own from the checkpoint."""

    def __init__(self, checkpoint: Path, test: FeatureSet, coders: Coders = HERE) -> None:
        self.checkpoint, self.loaded, self.test = checkpoint, load_checkpoint(checkpoint), test
        self.coders = coders

    def send(self, path: Path, advance: Advance) -> Sent:
        codec, bits = self.loaded.codec, 0.0
        estimates = isinstance(codec, EstimatingCodec)

        def samples() -> Iterator[Features]:
            nonlocal bits
            for maps in _batches(self.test):
                if isinstance(codec, EstimatingCodec):
                    bits += float(codec.estimate_bits(maps).sum())
                yield from split_batch(maps)

        sent = write(self.checkpoint, self.loaded, samples(), len(self.test), path, advance, self.coders)
        return replace(sent, estimated_bits=bits) if estimates else sent

    def receive(self, path: Path) -> Iterator[Received]:
        return decode(self.checkpoint, path, self.coders)

    def code_one(self) -> Callable[[], object]:
        codec, features = self.loaded.codec, self.test.maps(0)
        return lambda: codec.decode(codec.encode(features).payload, features.shapes)


def write(
    checkpoint: Path,
    loaded: Loaded,
    samples: Iterable[Features],
    n_samples: int,
    path: Path,
    advance: Advance,
    coders: Coders = HERE,
) -> Sent:
    """Code samples into a file, one record each. `checkpoint`: of the codec, and `loaded` from it."""
    with torch.inference_mode():
        results = coders.encode(checkpoint, loaded, samples)
        coded = ((stream, features.shapes, took_ms) for features, (stream, took_ms) in results)
        return write_records(path, header_of(loaded), coded, n_samples, advance)


def header_of(loaded: Loaded) -> container.Header:
    """What a file that a codec codes says of it."""
    return container.Header(loaded.point.codec, loaded.sha256, loaded.specs)


def decode(checkpoint: Path, path: Path, coders: Coders = HERE) -> Iterator[Received]:
    """Batches of features from a file and a checkpoint alone, with a new codec."""
    loaded, reader = load_checkpoint(checkpoint), container.ContainerReader(path)
    reader.verify_checkpoint(loaded.sha256)
    reader.verify_header(header_of(loaded), checkpoint)

    def decoded() -> Iterator[tuple[Features, float]]:
        for record, (result, took_ms) in coders.decode(checkpoint, loaded, reader):
            yield verified(record, result, checkpoint).features, took_ms

    channels = {s.name: s.channels for s in loaded.specs}
    largest = max((sum(channels[n] * h * w for n, (h, w) in r.shapes.items()) for r in reader), default=1)
    for group in grouped(decoded(), at_once(largest)):
        maps = {name: torch.cat([f.maps[name] for f, _ in group]) for name in group[0][0].maps}
        yield Received(maps, [ms for _, ms in group])


def verified(record: container.Record, decoded: Decoded, checkpoint: Path) -> Decoded:
    """What a codec made of a record. Raises `FcbenchError`: not what the record says of it, or not finite."""
    record.verify(decoded)
    for name, values in decoded.features.maps.items():
        if not bool(torch.isfinite(values).all()):
            what = f"decodes to values at {name} that are not finite"
            raise FcbenchError(f"{record.where} {what}: check the codec {checkpoint}")
    return decoded


def _batches(test: FeatureSet) -> Iterator[dict[str, Tensor]]:
    return test.batches(at_once(test.n_scalars // len(test)))


def at_once(n_scalars: int) -> int:
    """Number of samples per batch, for samples of this many feature scalars.

    >>> at_once(75_000), at_once(18_000_000)
    (32, 3)
    """
    return max(1, min(EVAL_BATCH, EVAL_BYTES // (4 * n_scalars)))


def split_batch(maps: Mapping[str, Tensor]) -> Iterator[Features]:
    """The samples of maps [B, C, h, w], each [1, C, h, w]."""
    for i in range(len(next(iter(maps.values())))):
        yield Features({name: m[i : i + 1] for name, m in maps.items()})


# ---------------------------------------------------------------------------------------------- images
@dataclass(frozen=True, slots=True)
class ImageSender:
    """Remote inference: the image is coded, and the receiver runs the same encoder on the decoded image."""

    point: OperatingPoint
    test: FeatureSet
    images: Dataset  # the data set of the test samples
    encoder: Encoder
    split_points: Sequence[str]

    @property
    def _plugin(self) -> Any:
        return registry.get("image", codec_kind(self.point.codec)[1])

    def send(self, path: Path, advance: Advance) -> Sent:
        plugin = self._plugin

        def coded() -> Iterator[Coded]:
            for i in range(len(self.test)):
                image = self.images[i].image.numpy()
                payload, took_ms = timed(lambda: plugin.encode(image, self.point.params))
                seen = plugin.decode(payload)
                n = plugin.header_bytes(payload)
                stream = Bitstream({rates.HEADERS: payload[:n], "image": payload[n:]}, seen.size, _check(seen))
                yield stream, {_IMAGE.name: seen.shape[1:]}, took_ms

        header = container.Header(self.point.codec, _NO_CHECKPOINT, (_IMAGE,))
        return write_records(path, header, coded(), len(self.test), advance)

    def receive(self, path: Path) -> Iterator[Received]:
        reader = container.ContainerReader(path)
        for group in grouped(decode_images(reader, codec_kind(self.point.codec)[1]), IMAGE_BATCH):
            maps = self.encoder(torch.stack([image for image, _ in group]), self.split_points).maps
            yield Received({name: m.cpu() for name, m in maps.items()}, [ms for _, ms in group])

    def code_one(self) -> Callable[[], object]:
        plugin, image = self._plugin, self.images[0].image.numpy()
        return lambda: plugin.decode(plugin.encode(image, self.point.params))


def decode_images(
    reader: container.ContainerReader, name: str, coders: Coders = HERE
) -> Iterator[tuple[Tensor, float]]:
    """Images uint8 [3, H, W] of a file, each with its decoding time [ms]. `name`: of the image coder. Raises
    `FcbenchError`: the file holds no images, or others than those that were coded."""
    if reader.header.specs != (_IMAGE,):
        raise FcbenchError(f"the file holds no images: it was coded by {reader.header.codec}, not by image:{name}")
    for record, (image, took_ms) in coders.decode_files("image", name, reader):
        if image.shape[1:] != record.shapes[_IMAGE.name]:
            expected = "x".join(map(str, record.shapes[_IMAGE.name]))
            raise FcbenchError(f"{record.where}: an image of {image.shape[1]}x{image.shape[2]}, expected {expected}")
        tensor = torch.from_numpy(image)
        record.verify(Decoded(Features({_IMAGE.name: tensor[None]}), image.size, _check(image)))
        yield tensor, took_ms


def _check(image: np.ndarray) -> int:
    return checksum(image.reshape(-1).astype(np.int32))


# ---------------------------------------------------------------------------------------------- labels
@dataclass(frozen=True, slots=True)
class LabelSender:
    """The task's own output for uncoded features, coded without loss, so the receiver gets exactly that output."""

    task: str
    test: FeatureSet
    predict: Callable[[int], Any]  # a head's prediction for a sample of the test set

    def send(self, path: Path, advance: Advance) -> Sent:
        plugin = registry.get("label", self.task)

        def coded() -> Iterator[Coded]:
            for i, name in enumerate(self.test.ids):
                output = plugin.output(self.predict(i))
                payload, took_ms = timed(lambda: plugin.encode(output))
                if not plugin.same(plugin.decode(payload), output):
                    raise FcbenchError(f"label coding of {self.task} is not lossless for sample {name}")
                stream = Bitstream({"label": payload}, 1, _check_of_label(payload))
                yield stream, {_LABEL.name: (1, 1)}, took_ms

        header = container.Header("label", _NO_CHECKPOINT, (_LABEL,))
        return write_records(path, header, coded(), len(self.test), advance)

    def receive(self, path: Path) -> Iterator[Received]:
        labels = decode_labels(container.ContainerReader(path), self.task)
        for maps in _batches(self.test):
            n = len(next(iter(maps.values())))
            yield Received(maps, [took_ms for _, took_ms in islice(labels, n)], exact=True)

    def code_one(self) -> Callable[[], object]:
        plugin = registry.get("label", self.task)
        output = plugin.output(self.predict(0))
        return lambda: plugin.decode(plugin.encode(output))


def decode_labels(reader: container.ContainerReader, task: str, coders: Coders = HERE) -> Iterator[tuple[Any, float]]:
    """Labels of a file, each with its decoding time [ms]. Raises `FcbenchError`: a label cannot be decoded, or is not
    the one that was coded."""
    for record, (label, took_ms) in coders.decode_files("label", task, reader):
        record.verify(Decoded(Features({}), 1, _check_of_label(record.payload)))
        yield label, took_ms


def _check_of_label(payload: bytes) -> int:
    return zlib.crc32(payload) & 0xFFFF


# ----------------------------------------------------------------------------------------------- tools
Coded = tuple[Bitstream, Mapping[str, tuple[int, int]], float]
"""A coded sample, the grids of its maps, and the encoding time [ms]."""


def write_records(
    path: Path, header: container.Header, coded: Iterable[Coded], n_samples: int, advance: Advance
) -> Sent:
    """Write coded samples into a file, one record each."""
    sizes, times, parts = list[int](), list[float](), Counter[str]()
    with container.ContainerWriter(path, header) as writer:
        for stream, grids, took_ms in coded:
            writer.append(stream, grids)
            sizes.append(len(stream.payload))
            times.append(took_ms)
            parts.update({part: len(data) for part, data in stream.parts.items()})
            advance(len(sizes), n_samples)
    n_bytes = path.stat().st_size
    parts[rates.CONTAINER] = n_bytes - sum(sizes)
    return Sent(n_bytes, sizes, dict(parts), encode_ms=typical(times))


def grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`; the last may be shorter.

    >>> list(grouped("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def typical(times_ms: Sequence[float]) -> float:
    """Median time, without the first, which warms up, if there are more."""
    return float(np.median(times_ms[1:] or times_ms))
