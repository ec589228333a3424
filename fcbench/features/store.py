"""Feature sets on disk: written, read.

One float32 ``.npy`` per map, [N, C, h, w], and ``index.json`` with the sample ids, the skipped ones, the grids and the
key in clear; beside each its digest (`fcbench.core.cache`).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from fcbench.core import cache
from fcbench.core.features import FeatureSpec
from fcbench.features.feature_set import DiskArrays, FeatureSet, SampleInfo, Skipped

SCHEMA = 3
"""Version of the folder and of how images become features. Bump when either changes."""

log = logging.getLogger(__name__)


def key_of(contents: Mapping[str, Any]) -> str:
    """Name of a set in the cache."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:24]


# ---------------------------------------------------------------------------------------------- read
def open_set(folder: Path) -> FeatureSet | None:
    """A set from its folder; None where there is none, or where it is not whole."""
    found = cache.get(folder / "index.json")
    if found is None:
        return None
    try:
        index = json.loads(found)
        if index["schema"] != SCHEMA or key_of(index["key"]) != folder.name:
            return None
        specs = {d["name"]: FeatureSpec(**d) for d in index["specs"]}
        samples = tuple(SampleInfo(d["id"], d["index"], tuple(d["size_px"])) for d in index["samples"])
        skipped = tuple(Skipped(**d) for d in index["skipped"])
        grids = {n: (int(h), int(w)) for n, (h, w) in index["grids"].items()}
        for name, spec in specs.items():
            if not cache.is_whole(folder / f"{name}.npy"):
                return None
            array = np.load(folder / f"{name}.npy", mmap_mode="r")
            if array.shape != (len(samples), spec.channels, *grids[name]):
                return None
        image_px = (int(index["image_px"][0]), int(index["image_px"][1]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return FeatureSet(folder.name, samples, skipped, image_px, specs, grids, DiskArrays(folder, list(specs)))


# --------------------------------------------------------------------------------------------- write
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
        """Close the files, also after a failure."""
        for file in self._files.values():
            try:
                file.close()
            except OSError as exc:
                log.debug("closing %s: %s", file.name, exc)


def write_index(
    folder: Path,
    key: Mapping[str, Any],
    image_px: tuple[int, int],
    samples: Sequence[SampleInfo],
    skipped: Sequence[Skipped],
    grids: Mapping[str, tuple[int, int]],
) -> None:
    """Write the digests and ``index.json``, which make the folder a set."""
    for name in grids:
        cache.seal(folder / f"{name}.npy")
    index = {
        "schema": SCHEMA,
        "key": key,
        "image_px": image_px,
        "specs": key["specs"],
        "grids": grids,
        "skipped": [asdict(s) for s in skipped],
        "samples": [asdict(s) for s in samples],
    }
    cache.put(folder / "index.json", json.dumps(index, indent=1).encode())
