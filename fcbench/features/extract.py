"""Features of a data set, extracted once and kept on disk.

One folder per set, ``CACHE/features/KEY``. It is written under another name and renamed at the end, so a folder under
its own name is whole; a lock keeps two processes from extracting the same set.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fcbench.core.cache import CACHE_HINT, Cache, locked
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.features import Encoder, require_split_points
from fcbench.core.files import disk_errors
from fcbench.core.libraries import code_of
from fcbench.core.processes import end_with_parent
from fcbench.core.progress import Advance
from fcbench.core.samples import Dataset
from fcbench.features.feature_set import FeatureSet, SampleInfo, Skipped
from fcbench.features.store import SCHEMA, Writer, key_of, open_set, write_index

BadImage = Literal["stop", "skip"]
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

    def __init__(self, dataset: Dataset, tasks: Sequence[str]) -> None:
        self._dataset, self._tasks = dataset, tasks

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
        except FcbenchError as exc:  # a loader would wrap its line into a traceback
            return _Read(index, error=str(exc), fatal=True)
        return _Read(index, sample.id, sample.image, sample.size_px)


def _as_list(items: list[_Read]) -> list[_Read]:
    return items


def _start_reading(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _batches(
    dataset: Dataset, tasks: Sequence[str], batch_size: int, n_workers: int
) -> Generator[list[_Read], None, None]:
    """Batches of images, read beside the encoder's work by `n_workers` processes (0: in this one).

    Raises:
        FcbenchError: a reading process died.
    """
    loader = DataLoader(
        _Images(dataset, tasks),
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
                f"a process that reads {dataset.name} died ({first}): too little memory? "
                "Run again, with a smaller batch or no reading workers"
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
    tasks: Sequence[str] = (),
    batch_size: int = 8,
    n_workers: int | None = None,
    advance: Advance | None = None,
) -> FeatureSet:
    """Features of a data set at split points: from the cache, else made and put there.

    Args:
        dataset: one split, its images of one size.
        encoder: a frozen encoder.
        split_points: names in ``encoder.specs``.
        cache: sets go to ``features`` in it.
        on_bad_image: ``stop`` at an unreadable sample, or ``skip`` and list it in the set.
        tasks: a sample whose target of one of these cannot be read counts as unreadable.
        batch_size: images per batch.
        n_workers: processes that read images, 0 for none but this one; None for one per four cores.
        advance: called with (samples done, samples in all).

    Raises:
        UnreadableSample: with ``stop``; it names the file.
        FcbenchError: images of several sizes, features that are not finite, no readable sample, or a
            cache that cannot be written.
    """
    require_split_points(encoder.name, encoder.specs, split_points)
    contents, home = describe(dataset, encoder, split_points), cache.features
    key = key_of(contents)
    if (found := usable(home / key, on_bad_image)) is not None:
        return found
    with locked(home / key):  # another process may have made it by now
        if (found := usable(home / key, on_bad_image)) is not None:
            return found
        n_workers = _default_workers() if n_workers is None else n_workers
        batches = _batches(dataset, tasks, batch_size, n_workers)
        with closing(batches) as reads, _new_folder(home, key) as folder:  # closed: reading processes end now
            _fill(folder, contents, dataset, encoder, split_points, reads, on_bad_image, advance)
    made = open_set(home / key)
    if made is None:
        raise FcbenchError(f"cache folder {home / key} changed while it was written: run again")
    return made


def _default_workers() -> int:
    """One for every four cores, at most 8. On fewer, a reading process only takes the encoder's core from it."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return min(8, cores // 4)


@contextmanager
def _new_folder(home: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which gets its name only if all goes well."""
    part = home / f"{name}.part"
    with disk_errors(home, CACHE_HINT):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    try:
        yield part
        with disk_errors(home, CACHE_HINT):
            shutil.rmtree(home / name, ignore_errors=True)
            os.replace(part, home / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def describe(dataset: Dataset, encoder: Encoder, split_points: Sequence[str]) -> dict[str, Any]:
    """All that determines features, in clear. No image is read."""
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "revision": dataset.revision,
        "split": dataset.split,
        "n_samples": len(dataset),
        "image_size_px": dataset.image_size_px,
        "encoder": encoder.name,
        "weights_sha256": encoder.weights.sha256,
        "code": code_of(encoder),
        "specs": [asdict(s) for n, s in encoder.specs.items() if n in split_points],
    }


def usable(folder: Path, on_bad_image: BadImage) -> FeatureSet | None:
    """A set on disk that answers the question: one with gaps only where gaps are allowed."""
    found = open_set(folder)
    return None if found and found.skipped and on_bad_image == "stop" else found


def _fill(
    folder: Path,
    contents: Mapping[str, Any],
    dataset: Dataset,
    encoder: Encoder,
    split_points: Sequence[str],
    reads: Iterator[list[_Read]],
    on_bad_image: BadImage,
    advance: Advance | None,
) -> None:
    """Extract a set into a folder, ``index.json`` last."""
    samples: list[SampleInfo] = []
    skipped: list[Skipped] = []
    writer, image_px = Writer(folder), (0, 0)
    try:
        for batch in reads:
            bad = [r for r in batch if r.image is None]
            _stop_at(bad, on_bad_image)
            skipped += [Skipped(r.index, r.error) for r in bad]
            good = [r for r in batch if r.image is not None]
            if good:
                images = _stack(good, image_px if samples else None)
                image_px = (int(images.shape[-2]), int(images.shape[-1]))
                maps = _encoded(encoder, images, split_points, good)
                with disk_errors(folder.parent, CACHE_HINT):
                    writer.append(maps)
                samples += [SampleInfo(r.id, r.index, r.size_px) for r in good]
            if advance:
                advance(len(samples) + len(skipped), len(dataset))
        if not samples:
            why = f": {skipped[0].reason}" if skipped else ""
            raise FcbenchError(f"data set {dataset.name} has no readable sample{why}")
        with disk_errors(folder.parent, CACHE_HINT):
            grids = writer.finish()
        write_index(folder, contents, image_px, samples, skipped, grids)
    finally:
        writer.close()


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
    first_h, first_w = image_px or images[0].shape[-2:]
    for read, image in zip(reads, images):
        h, w = int(image.shape[-2]), int(image.shape[-1])
        if (h, w) != (first_h, first_w):
            raise FcbenchError(
                f"images differ in size: {read.id} is {h}x{w}, the first is {first_h}x{first_w}: "
                "give --image-size to bring all to one"
            )
    return torch.stack(images)


def _encoded(
    encoder: Encoder, images: Tensor, split_points: Sequence[str], reads: Sequence[_Read]
) -> dict[str, Tensor]:
    with torch.inference_mode():
        maps = encoder(images, split_points).maps
    for name, tensor in maps.items():
        finite = torch.isfinite(tensor).flatten(1).all(1)
        if not bool(finite.all()):
            first = reads[int((~finite).nonzero()[0])].id
            raise FcbenchError(
                f"{encoder.name} gives values at {name} that are not finite, first for sample {first}: "
                "check its weights"
            )
    return maps
