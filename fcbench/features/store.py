"""Writing and reading feature sets on disk.

A set is a folder of shards, each of `SHARD_SAMPLES` indices of the data set, made and repaired on its own. A shard is a
folder, named by its first index, with one ``.npy`` per map, [n, C, h, w], float32 or float16, and ``index.json`` with
the sample ids, the skipped ones, the grids and the set's key as readable data; beside each file is its digest
(`fcbench.core.cache`). A set that is not to be stored has only the index.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from fcbench.core import cache
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeaturesDtype, FeatureSpec
from fcbench.features.feature_set import DiskArrays, EncodedArrays, FeatureSet, SampleInfo, Skipped

SCHEMA = 4
"""Version of the folder's layout and of how images become features. Bump when either changes."""

Encode = Callable[[Sequence[int]], Mapping[str, Tensor]]
"""Maps of samples by their indices in the data set, in stored form, on the CPU."""
log = logging.getLogger(__name__)


def key_of(contents: Mapping[str, Any]) -> str:
    """Name of a set in the cache."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:24]


def dtype_of(contents: Mapping[str, Any]) -> FeaturesDtype:
    """Type of the values of a set."""
    dtype: FeaturesDtype = contents.get("dtype", "float32")
    return dtype


def spans(contents: Mapping[str, Any]) -> list[range]:
    """Indices in the data set of each shard."""
    n, size = contents["n_samples"], contents["shard_samples"]
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


def shard_folder(folder: Path, span: range) -> Path:
    """Folder of the shard of these indices."""
    return folder / f"{span.start:08d}"


# ---------------------------------------------------------------------------------------------- read
@dataclass(frozen=True, slots=True)
class Shard:
    """A complete part of a set on disk. Without samples it has neither size nor grids."""

    folder: Path
    samples: tuple[SampleInfo, ...]
    skipped: tuple[Skipped, ...]
    image_px: tuple[int, int]
    grids: Mapping[str, tuple[int, int]]


def open_shard(folder: Path, contents: Mapping[str, Any], has_values: bool = True) -> Shard | None:
    """A shard from its folder; None if it is missing or incomplete.

    Args:
        has_values: if False, the index is enough.
    """
    content = cache.get(folder / "index.json")
    if content is None:
        return None
    try:
        index = json.loads(content)
        if index["schema"] != SCHEMA or index["key"] != json.loads(json.dumps(contents)):
            return None
        samples = tuple(SampleInfo(d["id"], d["index"], tuple(d["size_px"])) for d in index["samples"])
        skipped = tuple(Skipped(**d) for d in index["skipped"])
        grids = {n: (int(h), int(w)) for n, (h, w) in index["grids"].items()}
        for spec in contents["specs"] if samples and has_values else ():
            path = folder / f"{spec['name']}.npy"
            if not cache.is_whole(path):
                return None
            array = np.load(path, mmap_mode="r")
            expected = (len(samples), spec["channels"], *grids[spec["name"]]), np.dtype(dtype_of(contents))
            if (array.shape, array.dtype) != expected:
                return None
        image_px = (int(index["image_px"][0]), int(index["image_px"][1]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Shard(folder, samples, skipped, image_px, grids)


def open_set(folder: Path, contents: Mapping[str, Any], encode: Encode | None = None) -> FeatureSet | None:
    """A set from its folder; None if a shard is missing or incomplete, or if no sample could be read.

    Args:
        encode: computes the values, which the folder then need not hold.

    Raises:
        FcbenchError: images of several sizes.
    """
    shards = []
    for span in spans(contents):
        shard = open_shard(shard_folder(folder, span), contents, encode is None)
        if shard is None:
            return None
        shards.append(shard)
    return _joined(folder, contents, shards, encode) if any(s.samples for s in shards) else None


def _joined(
    folder: Path, contents: Mapping[str, Any], shards: Sequence[Shard], encode: Encode | None = None
) -> FeatureSet:
    full = [s for s in shards if s.samples]
    first = full[0]
    for shard in full:
        require_size(shard.samples[0].id, shard.image_px, first.image_px)
    specs = {d["name"]: FeatureSpec(**d) for d in contents["specs"]}
    shapes = {n: (s.channels, *first.grids[n]) for n, s in specs.items()}
    samples = tuple(sample for s in shards for sample in s.samples)
    arrays: DiskArrays | EncodedArrays
    if encode is None:
        arrays = DiskArrays([(s.folder, len(s.samples)) for s in full], shapes, dtype_of(contents))
    else:
        arrays = EncodedArrays(lambda indices: encode([samples[i].index for i in indices]), list(specs), len(samples))
    return FeatureSet(
        folder.name,
        samples,
        tuple(skipped for s in shards for skipped in s.skipped),
        first.image_px,
        specs,
        first.grids,
        arrays,
        dtype_of(contents),
    )


def require_size(sample_id: str, image_px: tuple[int, int], first_px: tuple[int, int]) -> None:
    """Refuse an image whose size (H, W) differs from the first one's."""
    if image_px != first_px:
        (h, w), (first_h, first_w) = image_px, first_px
        raise FcbenchError(
            f"images differ in size: {sample_id} is {h}x{w}, the first is {first_h}x{first_w}: "
            "give --image-size to bring all to one"
        )


# --------------------------------------------------------------------------------------------- write
def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Header of a ``.npy`` file; its length does not depend on the first dimension."""
    buffer = io.BytesIO()
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


class Writer:
    """Appends batches to ``.npy`` files; their headers are completed at the end.

    Writes are plain, not through a memory map, so that a full disk is an error and not a bus error.
    """

    def __init__(self, folder: Path, dtype: FeaturesDtype = "float32") -> None:
        self._folder, self._dtype = folder, np.dtype(dtype).newbyteorder("<")
        self._files: dict[str, BinaryIO] = {}
        self._rows: dict[str, tuple[int, ...]] = {}
        self.n = 0

    def append(self, maps: Mapping[str, Tensor]) -> None:
        """Append maps [B, C, h, w]; the shapes of one map must stay equal."""
        for name, tensor in maps.items():
            rows = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=self._dtype)
            if name not in self._files:
                self._rows[name] = rows.shape[1:]
                self._files[name] = (self._folder / f"{name}.npy").open("wb")
                self._files[name].write(_npy_header((0, *rows.shape[1:]), self._dtype))
            self._files[name].write(rows.data)
        self.n += len(next(iter(maps.values())))

    def finish(self) -> dict[str, tuple[int, int]]:
        """Complete the headers, flush everything to disk, with the digests. Returns (h, w) of each map."""
        for name, file in self._files.items():
            file.seek(0)
            file.write(_npy_header((self.n, *self._rows[name]), self._dtype))
            file.flush()
            os.fsync(file.fileno())
            cache.seal(self._folder / f"{name}.npy")
        return {name: (int(r[1]), int(r[2])) for name, r in self._rows.items()}

    def close(self) -> None:
        """Close the files, even after a failure."""
        for file in self._files.values():
            try:
                file.close()
            except OSError as exc:
                log.debug("closing %s: %s", file.name, exc)


class Shapes(Writer):
    """A writer that stores no values, only their shapes."""

    def append(self, maps: Mapping[str, Tensor]) -> None:
        """Record the shapes of maps [B, C, h, w]."""
        self._rows = {name: tuple(m.shape[1:]) for name, m in maps.items()}


def write_index(
    folder: Path,
    contents: Mapping[str, Any],
    image_px: tuple[int, int],
    samples: Sequence[SampleInfo],
    skipped: Sequence[Skipped],
    grids: Mapping[str, tuple[int, int]],
) -> None:
    """Write ``index.json``, which completes the shard."""
    index = {
        "schema": SCHEMA,
        "key": contents,
        "image_px": image_px,
        "grids": grids,
        "skipped": [asdict(s) for s in skipped],
        "samples": [asdict(s) for s in samples],
    }
    cache.put(folder / "index.json", json.dumps(index, indent=1).encode())
