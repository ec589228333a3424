"""Features of N samples: an immutable value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.features import Features, FeaturesDtype, FeatureSpec
from fcbench.features.devices import fits, moved

RAM_LIMIT_BYTES = 1 << 30
"""Sets smaller than this stay in memory after their first use."""
SHARD_SAMPLES = 64
"""Samples per shard, a part of a set on disk. A multiple of the encoder's batch."""


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """A sample of a set."""

    id: str
    index: int  # in the data set
    size_px: tuple[int, int]  # (H, W) of the original image


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be read."""

    index: int  # in the data set
    reason: str


class Sharded:
    """An array [N, ...] that stays on disk, in the shards of a set. Reading copies.

    Args:
        files: each with its number of samples.
        shape: of one sample.
    """

    device = torch.device("cpu")

    def __init__(self, files: Sequence[tuple[Path, int]], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._files, self._shape, self._dtype = [path for path, _ in files], shape, dtype
        self._ends = np.cumsum([n for _, n in files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """Samples by a slice or by their indices."""
        indices = np.arange(len(self))[which] if isinstance(which, slice) else which.cpu().numpy()
        out = torch.empty(len(indices), *self._shape, dtype=self._dtype)
        shards = np.searchsorted(self._ends, indices, side="right")
        for shard in np.unique(shards).tolist():
            (rows,) = np.nonzero(shards == shard)
            first = self._ends[shard - 1] if shard else 0
            array = np.load(self._files[shard], mmap_mode="r")  # unmapped at once, to save memory
            for row in rows.tolist():
                out.numpy()[row] = array[indices[row] - first]
        return out


class DiskArrays(Mapping[str, "Tensor | Sharded"]):
    """The arrays of a set by map: loaded into memory on first use if all are small, otherwise left on disk.

    Args:
        shards: folders, each with its number of samples.
        shapes: [C, h, w] by map.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]], shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
        of_type: torch.dtype = getattr(torch, dtype)
        self._sharded = {
            name: Sharded([(folder / f"{name}.npy", n) for folder, n in shards], shape, of_type)
            for name, shape in shapes.items()
        }
        n_scalars = sum(n for _, n in shards) * sum(map(math.prod, shapes.values()))
        self._small = n_scalars * of_type.itemsize < RAM_LIMIT_BYTES
        self._loaded: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor | Sharded:
        if not self._small:
            return self._sharded[name]
        if name not in self._loaded:
            self._loaded[name] = self._sharded[name][:]
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sharded)

    def __len__(self) -> int:
        return len(self._sharded)


class EncodedArrays(Mapping[str, "EncodedMap"]):
    """The arrays of a set by map, not stored: the encoder computes them on demand.

    Args:
        encode: computes maps [B, C, h, w] of samples by index, on the CPU.
        names: of the maps.
        n: samples.
    """

    def __init__(self, encode: Callable[[Sequence[int]], Mapping[str, Tensor]], names: Sequence[str], n: int) -> None:
        self._encode, self._n = encode, n
        self._maps = {name: EncodedMap(self, name, n) for name in names}
        self._last: tuple[Sequence[int], Mapping[str, Tensor]] = (), {}

    def at(self, indices: Sequence[int]) -> Mapping[str, Tensor]:
        """Maps of samples; the last ones are kept, because each map of a batch is read in turn."""
        if self._last[0] != indices:
            self._last = indices, self._encode(indices)
        return self._last[1]

    def __getitem__(self, name: str) -> EncodedMap:
        return self._maps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


class EncodedMap:
    """An array [N, ...] of `EncodedArrays`. Reading copies."""

    device = torch.device("cpu")

    def __init__(self, arrays: EncodedArrays, name: str, n: int) -> None:
        self._arrays, self._name, self._n = arrays, name, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """Samples by a slice or by their indices."""
        indices = list(range(self._n))[which] if isinstance(which, slice) else which.tolist()
        return self._arrays.at(indices)[self._name].clone()


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Features of N samples, in the order of the data set.

    Attributes:
        key: name of the set in the cache.
        samples: those that could be read.
        skipped: those that could not.
        image_px: (H, W) of the images as the encoder saw them.
        specs: of the maps, fine to coarse.
        grids: (h, w) of each map.
        arrays: [N, C, h, w] by map, in stored form.
        dtype: of stored values; reading gives float32.
    """

    key: str
    samples: tuple[SampleInfo, ...]
    skipped: tuple[Skipped, ...]
    image_px: tuple[int, int]
    specs: Mapping[str, FeatureSpec]
    grids: Mapping[str, tuple[int, int]]
    arrays: Mapping[str, Tensor | Sharded | EncodedMap]
    dtype: FeaturesDtype = "float32"

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def contents(self) -> dict[str, Any]:
        """What determines the set, for the keys of what is trained on it."""
        return {"features": self.key} | ({"indices": self.indices} if self.skipped else {})

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids."""
        return tuple(s.id for s in self.samples)

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the samples in the data set; those of skipped samples are missing."""
        return tuple(s.index for s in self.samples)

    @property
    def n_px(self) -> int:
        """Pixels of the original images: the denominator of bpp."""
        return sum(h * w for h, w in (s.size_px for s in self.samples))

    @property
    def n_scalars(self) -> int:
        """Scalars of all maps of all samples: the denominator of bpfp."""
        return len(self) * sum(s.channels * self.grids[n][0] * self.grids[n][1] for n, s in self.specs.items())

    @property
    def n_bytes(self) -> int:
        """Bytes of all maps of all samples in stored form."""
        return self.n_scalars * np.dtype(self.dtype).itemsize

    @property
    def block(self) -> int:
        """Number of neighbouring samples that are read together; all samples, if the set stays in memory."""
        return len(self) if self.n_bytes < RAM_LIMIT_BYTES else SHARD_SAMPLES

    @property
    def n_at_once(self) -> int:
        """Maximum number of samples in memory at a time."""
        return len(self) if self.n_bytes < RAM_LIMIT_BYTES else max(1, RAM_LIMIT_BYTES * len(self) // self.n_bytes)

    @property
    def finest(self) -> tuple[FeatureSpec, tuple[int, int]]:
        """Split point and grid of the finest map: the grid of a neck's output."""
        name = next(iter(self.specs))
        return self.specs[name], self.grids[name]

    def maps(self, index: int) -> Features:
        """Features of one sample: each map [1, C, h, w]."""
        return Features(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of samples by their index in this set, float32.

        They are copied; if all are the same sample, expanded.

        Raises:
            IndexError: no such index.
        """
        at = torch.as_tensor(list(indices), dtype=torch.long)
        if at.numel() and not (0 <= int(at.min()) and int(at.max()) < len(self)):
            raise IndexError(f"indices {list(indices)} of a set of {len(self)} samples")
        return {name: _taken(self.arrays[name], at).float() for name in self.specs}

    def near(self, device: torch.device) -> FeatureSet:
        """The set for training on a device: copied there if it fits, otherwise unchanged."""
        if isinstance(self.arrays, EncodedArrays) or not fits(self.n_bytes, device):
            return self
        return replace(self, arrays={name: self.arrays[name][:].to(device) for name in self.specs})

    def batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Maps [B, C, h, w] of all samples, batch by batch in order."""
        for indices in batches_of(len(self), size):
            yield self.batch(indices)


def _taken(array: Tensor | Sharded | EncodedMap, indices: Tensor) -> Tensor:
    if isinstance(array, Tensor) and is_repeated(array):
        return array[:1].expand(len(indices), -1, -1, -1)
    return array[moved(indices, array.device)]


def is_repeated(array: Tensor) -> bool:
    """Whether an array [N, ...] is a single sample N times in the same memory, as `Tensor.expand` makes it."""
    return len(array) > 1 and array.stride(0) == 0


def batches_of(n: int, size: int) -> list[range]:
    """Indices of n samples, `size` at a time.

    >>> batches_of(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(i, min(i + size, n)) for i in range(0, n, size)]
