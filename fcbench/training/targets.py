"""Targets of a task, cached in memory if they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.samples import Dataset
from fcbench.core.tasks import Task
from fcbench.features.devices import fits, moved

TARGETS_LIMIT_BYTES = 1 << 30
"""A task's targets are kept in memory after their first use if all fit into this."""


class Targets:
    """Targets of one task; cached in memory if all of them are small."""

    def __init__(self, dataset: Dataset, task: str) -> None:
        self._dataset, self._task = dataset, task
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __call__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """The targets of some samples."""
        return [{self._task: self._one(i)} for i in indices]

    @cached_property
    def _keep(self) -> bool:
        return _size_bytes(self._dataset.targets(0)[self._task]) * len(self._dataset) < TARGETS_LIMIT_BYTES

    def _one(self, index: int) -> Any:
        if index in self._kept:
            return self._kept[index]
        target = self._dataset.targets(index)[self._task]
        if self._keep:
            self._kept[index] = target
        return target


class Batches:
    """Batches of a task's targets for training on a device, cached there if they are tensors and all fit."""

    def __init__(self, task: Task, targets: Targets, device: torch.device) -> None:
        self._task, self._targets, self._device = task, targets, device
        self._kept: dict[int, Tensor] = {}
        self._keep = self._all_fit()

    def __call__(self, indices: Sequence[int]) -> Any:
        """Result of `Task.collate` for some samples, on the device."""
        if not self._keep:
            return self._collated(indices)
        new = [i for i in dict.fromkeys(indices) if i not in self._kept]
        if new:
            self._kept |= zip(new, self._collated(new))
        return torch.stack([self._kept[i] for i in indices])

    def _all_fit(self) -> bool:
        if not fits(0, self._device):
            return False
        first = self._task.collate(self._targets([0]))
        return isinstance(first, Tensor) and fits(first.nbytes * len(self._targets), self._device)

    def _collated(self, indices: Sequence[int]) -> Any:
        return moved(self._task.collate(self._targets(indices)), self._device)


def _size_bytes(target: Any) -> int:
    """Size of a map; any other target counts as a kilobyte."""
    return int(target.nbytes) if isinstance(target, (np.ndarray, Tensor)) else 1024
