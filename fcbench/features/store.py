"""The folder of a feature set: written, read, its statistics. `fcbench.features` fills it.

One float32 ``.npy`` a map, [N, C, h, w], and ``index.json`` with the sample ids, the skipped ones, the shapes and
the key in clear.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.features.statistics import statistics

SCHEMA = 1
"""Of the folder, and of how images become features: raise it when either changes."""
RAM_LIMIT_BYTES = 1 << 30
"""Sets smaller than this are kept in memory after their first use."""
CHUNK_BYTES = 64 << 20
"""How much of a set is in memory at a time while its statistics are taken."""

log = logging.getLogger(__name__)


# -------------------------------------------------------------------------------------------- store
@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of a store."""

    id: str
    index: int  # in the data set
    size_px: tuple[int, int]  # (H, W) of the original image


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be read."""

    index: int  # in the data set
    reason: str


class FeatureStore:
    """Features of N samples, on disk or in memory.

    Attributes:
        folder: where the set lies.
        entries: of the samples, in the order of the data set.
        ids: of the samples, in the order of the data set.
        indices: of the samples in the data set; skipped ones are missing.
        sizes_px: (H, W) of the original images.
        skipped: samples that could not be read.
        image_px: (H, W) of the images as the encoder saw them.
        specs: of the maps, fine to coarse.
        shapes: (h, w) of each map.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Entry],
        skipped: Sequence[Skipped],
        image_px: tuple[int, int],
        specs: Mapping[str, FeatureSpec],
        shapes: Mapping[str, tuple[int, int]],
        n_stored: int,
        arrays: dict[str, Tensor] | None = None,
    ) -> None:
        """Describe a set; `open_store` reads one from its folder."""
        self.folder = folder
        self.entries = tuple(entries)
        self.ids = tuple(e.id for e in entries)
        self.indices = tuple(e.index for e in entries)
        self.sizes_px = tuple(e.size_px for e in entries)
        self.skipped = tuple(skipped)
        self.image_px = image_px
        self.specs = dict(specs)
        self.shapes = dict(shapes)
        self._n_stored = n_stored
        self._arrays: dict[str, Tensor] = {} if arrays is None else arrays
        self._stats: dict[str, FeatureStats] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def n_px(self) -> int:
        """Pixels of the original images: the denominator of bpp."""
        return sum(h * w for h, w in self.sizes_px)

    @property
    def n_points(self) -> int:
        """Scalars of all maps of all samples: the denominator of bpfp."""
        return len(self) * sum(spec.channels * self.shapes[n][0] * self.shapes[n][1] for n, spec in self.specs.items())

    def maps(self, i: int) -> Features:
        """Features of one sample: each map [1, C, h, w]."""
        return Features(self.batch([i]))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of samples by their place in this store, copied.

        Raises:
            IndexError: no such place.
        """
        places = torch.as_tensor(list(indices), dtype=torch.long)
        if places.numel() and not (0 <= int(places.min()) and int(places.max()) < len(self)):
            raise IndexError(f"places {list(indices)} of a store of {len(self)}")
        return {name: self._array(name)[places] for name in self.specs}

    def stats(self) -> dict[str, FeatureStats]:
        """Per-channel statistics of each map over the store, in float64, one pass.

        Those of a whole set are kept beside it.
        """
        if self._stats is None:
            whole = len(self) == self._n_stored
            found = _load_stats(self.folder, self.specs) if whole else None
            if found is None:
                found = {name: self._map_stats(name) for name in self.specs}
                if whole:
                    _save_stats(self.folder, found)
            self._stats = found
        return self._stats

    def subset(self, n: int) -> FeatureStore:
        """The first n samples. Shares the arrays.

        Raises:
            FcbenchError: there are fewer, or n is below 1.
        """
        if not 1 <= n <= len(self):
            raise FcbenchError(f"cannot take {n} of {len(self)} samples: give 1 to {len(self)}")
        self._load()
        return FeatureStore(
            self.folder,
            self.entries[:n],
            self.skipped,
            self.image_px,
            self.specs,
            self.shapes,
            self._n_stored,
            self._arrays,
        )

    def _array(self, name: str) -> Tensor:
        """[N stored, C, h, w] of a map: in memory where the set is small, else mapped from disk."""
        self._load()
        return self._arrays[name]

    def _load(self) -> None:
        if self._arrays:
            return
        paths = {name: self.folder / f"{name}.npy" for name in self.specs}
        small = sum(p.stat().st_size for p in paths.values()) < RAM_LIMIT_BYTES
        for name, path in paths.items():
            # "c": copy on write; torch wants memory that may be written, the file stays as it is
            self._arrays[name] = torch.from_numpy(np.load(path, mmap_mode=None if small else "c"))

    def _map_stats(self, name: str) -> FeatureStats:
        array = self._array(name)
        step = max(1, CHUNK_BYTES // (array[0].numel() * 8))
        return statistics(array[i : min(i + step, len(self))] for i in range(0, len(self), step))


_STATS = ("mean", "std", "low", "high")


def _save_stats(folder: Path, stats: Mapping[str, FeatureStats]) -> None:
    tensors = {f"{n}.{k}": getattr(s, k).contiguous() for n, s in stats.items() for k in _STATS}
    part = folder / f"stats.{os.getpid()}.part"
    with disk_errors(folder):
        try:
            save_file(tensors, part)
        except SafetensorError as exc:  # its way to say that the disk is full
            raise FcbenchError(f"cannot write to cache folder {folder}: {exc}") from exc
        os.replace(part, folder / "stats.safetensors")


def _load_stats(folder: Path, specs: Mapping[str, FeatureSpec]) -> dict[str, FeatureStats] | None:
    path = folder / "stats.safetensors"
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        return {n: FeatureStats(*(tensors[f"{n}.{k}"] for k in _STATS)) for n in specs}
    except (OSError, SafetensorError, KeyError):
        log.warning("%s is damaged: taking the statistics again", path)
        return None


# ------------------------------------------------------------------------------------ on disk: read
def open_store(folder: Path) -> FeatureStore | None:
    """A set from its folder; None where there is none, or where it is not whole."""
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["schema"] != SCHEMA:
            return None
        specs = {d["name"]: FeatureSpec(**d) for d in index["specs"]}
        entries = [Entry(d["id"], d["index"], tuple(d["size_px"])) for d in index["samples"]]
        skipped = [Skipped(**d) for d in index["skipped"]]
        shapes = {n: (int(h), int(w)) for n, (h, w) in index["shapes"].items()}
        for name, spec in specs.items():
            array = np.load(folder / f"{name}.npy", mmap_mode="r")
            if array.shape != (len(entries), spec.channels, *shapes[name]):
                return None
        image_px = (int(index["image_px"][0]), int(index["image_px"][1]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return FeatureStore(folder, entries, skipped, image_px, specs, shapes, len(entries))


# ----------------------------------------------------------------------------------- on disk: write
@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn failures to write into one line that names the folder."""
    try:
        yield
    except OSError as exc:
        hints = {
            errno.ENOSPC: "make room",
            errno.EDQUOT: "make room",
            errno.ENOTDIR: "a file stands where a folder should",
            errno.EEXIST: "a file stands where a folder should",
        }
        hint = hints.get(exc.errno or 0, "check its permissions")
        raise FcbenchError(
            f"cannot write to cache folder {folder}: {exc.strerror or exc}; {hint}, or give " "another --cache-dir"
        ) from exc


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Head of a ``.npy`` file of float32; of one length for any first dimension."""
    buffer = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


class Writer:
    """Appends batches to ``.npy`` files; their heads are set right at the end.

    Plain writes, not a memory map: a full disk is then an error and not a bus error.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._rows: dict[str, tuple[int, ...]] = {}
        self.n = 0

    def append(self, maps: Mapping[str, Tensor]) -> None:
        """Append maps [B, C, h, w]; the shapes of one map must stay equal."""
        for name, tensor in maps.items():
            rows = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype="<f4")
            if name not in self._files:
                self._rows[name] = rows.shape[1:]
                self._files[name] = (self._folder / f"{name}.npy").open("wb")
                self._files[name].write(_npy_header((0, *rows.shape[1:])))
            self._files[name].write(rows.data)
        self.n += len(next(iter(maps.values())))

    def finish(self) -> dict[str, tuple[int, int]]:
        """Set the heads right and bring all to the disk. Returns (h, w) of each map."""
        for name, file in self._files.items():
            file.seek(0)
            file.write(_npy_header((self.n, *self._rows[name])))
            file.flush()
            os.fsync(file.fileno())
        return {name: (int(r[1]), int(r[2])) for name, r in self._rows.items()}

    def close(self) -> None:
        """Close the files; after a failure what they hold no longer matters."""
        for file in self._files.values():
            try:
                file.close()
            except OSError as exc:
                log.debug("closing %s: %s", file.name, exc)


def write_index(
    folder: Path,
    key: Mapping[str, Any],
    entries: Sequence[Entry],
    skipped: Sequence[Skipped],
    shapes: Mapping[str, tuple[int, int]],
) -> None:
    index = {
        "schema": SCHEMA,
        "key": key,
        "image_px": key["image_px"],
        "specs": [s for s in key["specs"] if s["name"] in shapes],
        "shapes": shapes,
        "skipped": [asdict(s) for s in skipped],
        "samples": [asdict(e) for e in entries],
    }
    with (folder / "index.json").open("w") as file:
        json.dump(index, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
