"""Features of N samples: an immutable value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcbench.core.features import Features, FeatureSpec
from fcbench.features.devices import fits, moved

RAM_LIMIT_BYTES = 1 << 30
"""Sets smaller than this are kept in memory after their first use."""


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


class DiskArrays(Mapping[str, Tensor]):
    """The arrays of a folder by map, loaded on first use: into memory where all are small, else mapped from disk."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._paths = {name: folder / f"{name}.npy" for name in names}
        self._loaded: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._loaded:
            small = sum(p.stat().st_size for p in self._paths.values()) < RAM_LIMIT_BYTES
            # "c": copy on write; torch wants memory that may be written, the file stays as it is
            array = np.load(self._paths[name], mmap_mode=None if small else "c")
            self._loaded[name] = torch.from_numpy(array)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Features of N samples, in the order of the data set.

    Attributes:
        key: names the set: what is trained on it is found again by this name.
        samples: those that could be read.
        skipped: those that could not.
        image_px: (H, W) of the images as the encoder saw them.
        specs: of the maps, fine to coarse.
        grids: (h, w) of each map.
        arrays: float32 [N, C, h, w] by map.
    """

    key: str
    samples: tuple[SampleInfo, ...]
    skipped: tuple[Skipped, ...]
    image_px: tuple[int, int]
    specs: Mapping[str, FeatureSpec]
    grids: Mapping[str, tuple[int, int]]
    arrays: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids."""
        return tuple(s.id for s in self.samples)

    @property
    def indices(self) -> tuple[int, ...]:
        """Places of the samples in the data set; those of skipped samples are missing."""
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
    def finest(self) -> tuple[FeatureSpec, tuple[int, int]]:
        """Split point and grid of the finest map: the grid of a neck's output."""
        name = next(iter(self.specs))
        return self.specs[name], self.grids[name]

    def maps(self, index: int) -> Features:
        """Features of one sample: each map [1, C, h, w]."""
        return Features(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of samples by their place in this set, copied; where all are one and the same, expanded.

        Raises:
            IndexError: no such place.
        """
        places = torch.as_tensor(list(indices), dtype=torch.long)
        if places.numel() and not (0 <= int(places.min()) and int(places.max()) < len(self)):
            raise IndexError(f"places {list(indices)} of a set of {len(self)} samples")
        arrays = {name: self.arrays[name] for name in self.specs}
        return {
            name: (
                array[:1].expand(len(places), -1, -1, -1) if is_repeated(array) else array[moved(places, array.device)]
            )
            for name, array in arrays.items()
        }

    def near(self, device: torch.device) -> FeatureSet:
        """The set for training on a device: on it where it fits there, else as it is."""
        if not fits(4 * self.n_scalars, device):
            return self
        return replace(self, arrays={name: self.arrays[name].to(device) for name in self.specs})

    def batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """All samples in order, maps [B, C, h, w] at a time."""
        for places in batches_of(len(self), size):
            yield self.batch(places)


def is_repeated(array: Tensor) -> bool:
    """Whether an array [N, ...] is one and the same sample N times in the same memory, as `Tensor.expand` makes it."""
    return len(array) > 1 and array.stride(0) == 0


def batches_of(n: int, size: int) -> list[range]:
    """Places of n samples, `size` at a time.

    >>> batches_of(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(i, min(i + size, n)) for i in range(0, n, size)]
