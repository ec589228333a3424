"""Features of a data set, extracted once and kept on disk.

One folder a set, ``CACHE/features/KEY``. It is written under another name and renamed at the end, so a folder under
its own name is whole; a lock keeps two processes from extracting the same set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import filelock
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.features import Encoder
from fcbench.core.samples import Dataset
from fcbench.features.store import SCHEMA, Entry, FeatureStore, Skipped, Writer, disk_errors, open_store, write_index

__all__ = ["BadImage", "FeatureStore", "Progress", "extract"]

BadImage = Literal["stop", "skip"]
Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class _Read:
    """What a reading worker hands over: an image, or why there is none."""

    index: int
    id: str = ""
    image: Tensor | None = None
    size_px: tuple[int, int] = (0, 0)
    error: str = ""
    fatal: bool = False  # not this sample's failure alone


class _Images(TorchDataset):
    """The images of a data set, for a loader; an unreadable one is a value, not an exception."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> _Read:
        try:
            sample = self._dataset[index]
            dict(self._dataset.targets(index))  # unreadable targets leave a sample out, as an unreadable image does
        except UnreadableSample as exc:
            return _Read(index, error=str(exc))
        except FcbenchError as exc:  # a loader would wrap its line into a traceback
            return _Read(index, error=str(exc), fatal=True)
        return _Read(index, sample.id, sample.image, sample.size_px)


def _as_list(items: list[_Read]) -> list[_Read]:
    return items


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _batches(dataset: Dataset, batch_size: int, n_workers: int) -> Iterator[list[_Read]]:
    """Batches of images, read beside the encoder's work by `n_workers` processes (0: in this one).

    Raises:
        FcbenchError: a reading process died.
    """
    loader = DataLoader(
        _Images(dataset), batch_size=batch_size, num_workers=n_workers, collate_fn=_as_list, worker_init_fn=_one_thread
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
                f"a process that reads {dataset.name} died ({first}): too little memory? "
                "Run again, with a smaller batch or no reading workers"
            ) from exc
        yield batch


# --------------------------------------------------------------------------------------- extraction
def extract(
    dataset: Dataset,
    encoder: Encoder,
    splits: Sequence[str],
    cache_dir: Path,
    *,
    on_bad_image: BadImage = "stop",
    batch_size: int = 8,
    n_workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Features of a data set at split points: from the cache, else made and put there.

    Args:
        dataset: one split, its images of one size.
        encoder: a frozen encoder.
        splits: names of split points.
        cache_dir: the cache; sets go to ``features`` in it.
        on_bad_image: ``stop`` at an unreadable sample, or ``skip`` and list it in the store.
        batch_size: images a batch.
        n_workers: processes that read images, 0 for none but this one; None for one of every four cores.
        progress: called with (samples done, samples in all).

    Raises:
        UnreadableSample: with ``stop``; it names the file.
        FcbenchError: images of several sizes, features that are not finite, no readable sample, or a
            cache that cannot be written.
    """
    for split in splits:
        if split not in encoder.specs:
            what = f"split point of {encoder.name}"
            raise FcbenchError(registry.unknown(what, split, encoder.specs))
    home, name, key = described(dataset, encoder, splits, cache_dir)
    if (found := usable(home / name, on_bad_image)) is not None:
        return found
    with _locked(home, name):  # another process may have made it by now
        if (found := usable(home / name, on_bad_image)) is not None:
            return found
        n_workers = _default_workers() if n_workers is None else n_workers
        reads = _batches(dataset, batch_size, n_workers)
        with _new_folder(home, name) as folder:
            _fill(folder, key, dataset, encoder, splits, reads, on_bad_image, progress)
    made = open_store(home / name)
    if made is None:
        raise FcbenchError(f"cache folder {home / name} changed while it was written: run again")
    return made


def _default_workers() -> int:
    """One for every four cores, at most 8. On fewer, a reading process only takes the encoder's core from it."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return min(8, cores // 4)


@contextmanager
def _locked(home: Path, name: str) -> Iterator[None]:
    """Hold the lock of a set; wait for another process that does."""
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(home / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.warning("waiting for another process that extracts %s", home / name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _new_folder(home: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which gets its name only if all goes well."""
    part = home / f"{name}.part"
    with disk_errors(home):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    try:
        yield part
        with disk_errors(home):
            shutil.rmtree(home / name, ignore_errors=True)
            os.replace(part, home / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def described(
    dataset: Dataset, encoder: Encoder, splits: Sequence[str], cache_dir: Path
) -> tuple[Path, str, dict[str, Any]]:
    """Where a set is kept (folder of all sets, its name in it), and all that determines it, in clear."""
    key = _key(dataset, encoder, splits)
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir / "features", name, key


def _key(dataset: Dataset, encoder: Encoder, splits: Sequence[str]) -> dict[str, Any]:
    """All that determines features, in clear."""
    specs = [asdict(s) for n, s in encoder.specs.items() if n in splits]
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "revision": dataset.revision,
        "split": dataset.split,
        "n_samples": len(dataset),
        "image_px": _first_image_px(dataset),
        "image_size_px": dataset.image_size_px,
        "encoder": encoder.name,
        "weights_sha256": encoder.weights.sha256,
        "specs": specs,
    }


def _first_image_px(dataset: Dataset) -> tuple[int, int] | None:
    """(H, W) of the first readable image; all others must have it too. None where none is readable."""
    for i in range(len(dataset)):
        try:
            image = dataset[i].image
        except UnreadableSample:
            continue
        return int(image.shape[-2]), int(image.shape[-1])
    return None


def usable(folder: Path, on_bad_image: BadImage) -> FeatureStore | None:
    """A set on disk that answers the question: one with gaps only where gaps are allowed."""
    store = open_store(folder)
    return None if store and store.skipped and on_bad_image == "stop" else store


def _fill(
    folder: Path,
    key: Mapping[str, Any],
    dataset: Dataset,
    encoder: Encoder,
    splits: Sequence[str],
    reads: Iterator[list[_Read]],
    on_bad_image: BadImage,
    progress: Progress | None,
) -> None:
    """Extract a set into a folder, ``index.json`` last."""
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    writer = Writer(folder)
    try:
        for batch in reads:
            bad = [r for r in batch if r.image is None]
            _stop_at(bad, on_bad_image)
            skipped += [Skipped(r.index, r.error) for r in bad]
            good = [r for r in batch if r.image is not None]
            if good:
                images = _stack(good, key["image_px"])
                maps = _encoded(encoder, images, splits, good)
                with disk_errors(folder.parent):
                    writer.append(maps)
                entries += [Entry(r.id, r.index, r.size_px) for r in good]
            if progress:
                progress(len(entries) + len(skipped), len(dataset))
        if not entries:
            why = f": {skipped[0].reason}" if skipped else ""
            raise FcbenchError(f"data set {dataset.name} has no readable sample{why}")
        with disk_errors(folder.parent):
            write_index(folder, key, entries, skipped, writer.finish())
    finally:
        writer.close()


def _stop_at(bad: Sequence[_Read], on_bad_image: BadImage) -> None:
    """Raise for samples that could not be read, unless they may be left out."""
    for read in bad:
        if read.fatal:
            raise FcbenchError(read.error)
        if on_bad_image == "stop":
            raise UnreadableSample(read.error)


def _stack(reads: Sequence[_Read], image_px: tuple[int, int]) -> Tensor:
    """Images of one size as uint8 [B, 3, H, W]."""
    images = [r.image for r in reads if r.image is not None]
    for read, image in zip(reads, images):
        h, w = int(image.shape[-2]), int(image.shape[-1])
        if (h, w) != image_px:
            raise FcbenchError(
                f"images differ in size: {read.id} is {h}x{w}, the first is "
                f"{image_px[0]}x{image_px[1]}: give --image-size to bring all to one"
            )
    return torch.stack(images)


def _encoded(encoder: Encoder, images: Tensor, splits: Sequence[str], reads: Sequence[_Read]) -> dict[str, Tensor]:
    with torch.inference_mode():
        maps = encoder(images, splits).maps
    for name, tensor in maps.items():
        finite = torch.isfinite(tensor).flatten(1).all(1)
        if not bool(finite.all()):
            first = reads[int((~finite).nonzero()[0])].id
            raise FcbenchError(
                f"{encoder.name} gives values at {name} that are not finite, first for sample {first}: "
                "check its weights"
            )
    return maps
