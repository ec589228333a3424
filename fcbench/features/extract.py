"""Features of a data set, extracted once and kept on disk.

One folder per set, ``CACHE/features/KEY``, with one folder per shard in it. A shard is written under another name and
renamed at the end, so a folder with its final name is complete. Each has a lock: several processes that want the same
set share its shards, and a killed process leaves all shards that it finished.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from fcbench.core.cache import CACHE_HINT, Cache, locked
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.features import Encoder, FeaturesDtype, require_split_points
from fcbench.core.files import disk_errors
from fcbench.core.libraries import code_of
from fcbench.core.processes import end_with_parent
from fcbench.core.progress import Advance
from fcbench.core.samples import Dataset
from fcbench.features import feature_set
from fcbench.features.feature_set import FeatureSet, SampleInfo, Skipped, batches_of
from fcbench.features.store import (
    SCHEMA,
    Shapes,
    Shard,
    Writer,
    dtype_of,
    key_of,
    open_set,
    open_shard,
    require_size,
    shard_folder,
    spans,
    write_index,
)

BadImage = Literal["stop", "skip"]
BATCH = 8
"""Images per batch of an encoder."""
log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class _Read:
    """Result of a reading worker: an image, or the reason why there is none."""

    index: int
    id: str = ""
    image: Tensor | None = None
    size_px: tuple[int, int] = (0, 0)
    error: str = ""
    fatal: bool = False  # not only this sample's failure


class _Images(TorchDataset):
    """The images of a data set, for a loader; an unreadable one is a value, not an exception."""

    def __init__(self, dataset: Dataset, tasks: Sequence[str]) -> None:
        self._dataset, self._tasks = dataset, [task for task in tasks if task in dataset.tasks]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> _Read:
        try:
            sample = self._dataset[index]
            if self._tasks:  # unreadable targets leave a sample out, as an unreadable image does
                targets = self._dataset.targets(index)
                for task in self._tasks:
                    targets[task]
        except UnreadableSample as exc:
            return _Read(index, error=str(exc))
        except FcbenchError as exc:  # a loader would wrap its message in a traceback
            return _Read(index, error=str(exc), fatal=True)
        return _Read(index, sample.id, sample.image, sample.size_px)


def _as_list(items: list[_Read]) -> list[_Read]:
    return items


def _start_reading(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _batches(
    dataset: Dataset, indices: range, tasks: Sequence[str], batch_size: int, n_workers: int
) -> Generator[list[_Read], None, None]:
    """Batches of the images at some indices, read by `n_workers` processes while the encoder works (0: in this one).

    Raises:
        FcbenchError: a reading process died.
    """
    loader = DataLoader(
        Subset(_Images(dataset, tasks), indices),
        batch_size=batch_size,
        num_workers=n_workers,
        collate_fn=_as_list,
        worker_init_fn=_start_reading,
    )
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as exc:
            if "DataLoader worker (pid" not in str(exc):
                raise
            first = str(exc).splitlines()[0]
            raise FcbenchError(
                f"a process that reads {dataset.name} died ({first}), perhaps for lack of memory. "
                "Run again, with a smaller batch or without reading workers"
            ) from exc
        yield batch


# --------------------------------------------------------------------------------------- extraction
def extract(
    dataset: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    cache: Cache,
    *,
    on_bad_image: BadImage = "stop",
    dtype: FeaturesDtype = "float32",
    tasks: Sequence[str] = (),
    batch_size: int = BATCH,
    n_workers: int | None = None,
    advance: Advance | None = None,
) -> FeatureSet:
    """Features of a data set at split points: from the cache, or extracted and stored.

    If the cache stores no features, images are read once for their metadata, and encoded whenever features are read.

    Args:
        dataset: one split, its images of one size.
        encoder: a frozen encoder.
        split_points: names in ``encoder.specs``.
        cache: stores the sets under ``features``.
        on_bad_image: ``stop`` at an unreadable sample, or ``skip`` and list it in the set.
        dtype: of stored features.
        tasks: a sample whose target of one of these cannot be read counts as unreadable.
        batch_size: images per batch.
        n_workers: processes that read images, 0 for only this one; None for one per four cores.
        advance: called with (samples done, total samples).

    Raises:
        UnreadableSample: with ``stop``; it names the file.
        FcbenchError: images of several sizes, features that are not finite or that `dtype` cannot hold, no readable
            sample, or a cache that cannot be written.
    """
    require_split_points(encoder.name, encoder.specs, split_points)
    contents = describe(dataset, encoder, split_points, dtype, on_bad_image, tasks)
    if (cached := usable(dataset, encoder, split_points, contents, cache, on_bad_image)) is not None:
        return cached
    work = _Extraction(dataset, encoder, split_points, contents, cache, on_bad_image, tasks, batch_size, n_workers)
    shards = work.run(advance)
    if not any(s.samples for s in shards):
        first = next((skipped for s in shards for skipped in s.skipped), None)
        why = f": {first.reason}" if first else ""
        raise FcbenchError(f"data set {dataset.name} has no readable sample{why}")
    made = usable(dataset, encoder, split_points, contents, cache, on_bad_image)
    if made is None:
        raise FcbenchError(f"cache folder {work.folder} changed while it was written: run again")
    return made


@dataclass(slots=True)
class _Extraction:
    """The extraction of a set, shard by shard.

    Attributes:
        first_px: (H, W) of the first image seen; all others must have it.
        n_done: samples in finished shards.
    """

    dataset: Dataset
    encoder: Encoder
    split_points: Sequence[str]
    contents: Mapping[str, Any]
    cache: Cache
    on_bad_image: BadImage
    tasks: Sequence[str]
    batch_size: int
    n_workers: int | None
    first_px: tuple[int, int] | None = None
    n_done: int = 0

    @property
    def folder(self) -> Path:
        """Folder of the set."""
        return self.cache.features / key_of(self.contents)

    def run(self, advance: Advance | None) -> list[Shard]:
        """Make all shards: first those that no other process works on, then those that remain unfinished."""
        made: dict[range, Shard] = {}
        for wait in (False, True):
            for span in spans(self.contents):
                if span not in made and (shard := self._shard(span, wait, advance)) is not None:
                    made[span], self.first_px = shard, self.first_px or (shard.image_px if shard.samples else None)
                    self.n_done += len(span)
        return list(made.values())

    def _shard(self, span: range, wait: bool, advance: Advance | None) -> Shard | None:
        """A shard from disk, or made now; None if another process is making it and `wait` is False."""
        home = shard_folder(self.folder, span)
        if (shard := self._found(home, span, advance)) is not None:
            return shard
        with locked(home, wait) as is_mine:
            if (shard := self._found(home, span, advance)) is not None or not is_mine:
                return shard
            n_workers = _default_workers() if self.n_workers is None else self.n_workers
            batches = _batches(self.dataset, span, self.tasks, self.batch_size, n_workers)
            with closing(batches) as reads, _new_folder(home) as part:  # closing ends the reading processes now
                self._fill(part, reads, advance)
        return self._usable(home)

    def _found(self, home: Path, span: range, advance: Advance | None) -> Shard | None:
        shard = self._usable(home)
        if shard and advance:
            advance(self.n_done + len(span), len(self.dataset))
        return shard

    def _usable(self, home: Path) -> Shard | None:
        shard = open_shard(home, self.contents, self.cache.keeps_features)
        return None if shard and shard.skipped and self.on_bad_image == "stop" else shard

    def _fill(self, part: Path, reads: Iterator[list[_Read]], advance: Advance | None) -> None:
        """Extract a shard into a folder, ``index.json`` last."""
        samples: list[SampleInfo] = []
        skipped: list[Skipped] = []
        dtype = dtype_of(self.contents)
        writer = Writer(part, dtype) if self.cache.keeps_features else Shapes(part)
        try:
            for batch in reads:
                bad = [r for r in batch if r.image is None]
                _stop_at(bad, self.on_bad_image)
                skipped += [Skipped(r.index, r.error) for r in bad]
                good = [r for r in batch if r.image is not None]
                if good:
                    images = _stack(good, self.first_px)
                    self.first_px = int(images.shape[-2]), int(images.shape[-1])
                    if self.cache.keeps_features or not samples:  # the first batch gives the shapes
                        maps = _encoded(self.encoder, images, self.split_points, good, dtype)
                        with disk_errors(part.parent, CACHE_HINT):
                            writer.append(maps)
                    samples += [SampleInfo(r.id, r.index, r.size_px) for r in good]
                if advance:
                    advance(self.n_done + len(samples) + len(skipped), len(self.dataset))
            with disk_errors(part.parent, CACHE_HINT):
                grids = writer.finish()
            write_index(part, self.contents, self.first_px or (0, 0), samples, skipped, grids)
        finally:
            writer.close()


def _default_workers() -> int:
    """One for every four cores, at most 8. With fewer cores, a reading process would take the encoder's."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return min(8, cores // 4)


@contextmanager
def _new_folder(home: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name only on success."""
    part = home.with_name(f"{home.name}.part")
    with disk_errors(home, CACHE_HINT):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    try:
        yield part
        with disk_errors(home, CACHE_HINT):
            shutil.rmtree(home, ignore_errors=True)
            os.replace(part, home)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def describe(
    dataset: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    dtype: FeaturesDtype = "float32",
    on_bad_image: BadImage = "stop",
    tasks: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that determines features, as readable data: also the tasks whose unreadable targets leave a sample
    out. No image is read."""
    contents = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "revision": dataset.revision,
        "split": dataset.split,
        "n_samples": len(dataset),
        "shard_samples": feature_set.SHARD_SAMPLES,
        "image_size_px": dataset.image_size_px,
        "encoder": encoder.name,
        "weights_sha256": encoder.weights.sha256,
        "code": code_of(encoder),
        "specs": [asdict(s) for n, s in encoder.specs.items() if n in split_points],
    }
    checked = sorted(set(tasks) & set(dataset.tasks)) if on_bad_image == "skip" else []
    contents |= {"tasks": checked} if checked else {}
    return contents if dtype == "float32" else contents | {"dtype": dtype}


def usable(
    dataset: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    contents: Mapping[str, Any],
    cache: Cache,
    on_bad_image: BadImage,
) -> FeatureSet | None:
    """A usable set from the cache: one with gaps only if gaps are allowed."""
    folder = cache.features / key_of(contents)
    features = open_set(folder, contents)
    if features is None and not cache.keeps_features:
        features = open_set(folder, contents, partial(_encode, dataset, encoder, split_points, dtype_of(contents)))
    return None if features and features.skipped and on_bad_image == "stop" else features


def _encode(
    dataset: Dataset, encoder: Encoder, split_points: Sequence[str], dtype: FeaturesDtype, indices: Sequence[int]
) -> dict[str, Tensor]:
    """Features of some samples by their indices in the data set, in the form to be stored, on the CPU."""
    images, parts = _Images(dataset, ()), list[dict[str, Tensor]]()
    for batch in batches_of(len(indices), BATCH):
        reads = [images[indices[i]] for i in batch]
        _stop_at([r for r in reads if r.image is None], "stop")
        maps = _encoded(encoder, _stack(reads, None), split_points, reads, dtype)
        parts.append({name: m.to("cpu", getattr(torch, dtype)) for name, m in maps.items()})
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _stop_at(bad: Sequence[_Read], on_bad_image: BadImage) -> None:
    """Raise for samples that could not be read, unless they may be left out."""
    for read in bad:
        if read.fatal:
            raise FcbenchError(read.error)
        if on_bad_image == "stop":
            raise UnreadableSample(read.error)


def _stack(reads: Sequence[_Read], image_px: tuple[int, int] | None) -> Tensor:
    """Images of one size as uint8 [B, 3, H, W]; None: of the first one's."""
    images = [r.image for r in reads if r.image is not None]
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    for read, size in zip(reads, sizes):
        require_size(read.id, size, image_px or sizes[0])
    return torch.stack(images)


def _encoded(
    encoder: Encoder, images: Tensor, split_points: Sequence[str], reads: Sequence[_Read], dtype: FeaturesDtype
) -> dict[str, Tensor]:
    with torch.inference_mode():
        maps = encoder(images, split_points).maps
    limit = torch.finfo(getattr(torch, dtype)).max
    for name, tensor in maps.items():
        values = f"{encoder.name} gives values at {name}"
        _require(torch.isfinite(tensor), f"{values} that are not finite", reads, "check its weights")
        _require(
            tensor.abs() <= limit,
            f"{values} beyond {limit:.5g}, the largest that {dtype} holds",
            reads,
            "give --features-dtype float32",
        )
    return maps


def _require(holds: Tensor, fault: str, reads: Sequence[_Read], hint: str) -> None:
    """Refuse maps [B, C, h, w] with values for which a condition does not hold; the error names the first sample."""
    of_sample = holds.flatten(1).all(1)
    if not bool(of_sample.all()):
        raise FcbenchError(f"{fault}, first for sample {reads[int((~of_sample).nonzero()[0])].id}: {hint}")
