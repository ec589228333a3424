"""Targets of a task, kept in memory where they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fcbench.core.samples import Dataset

TARGETS_LIMIT_BYTES = 1 << 30
"""A task's targets are kept in memory after their first use where all fit into this."""


class Targets:
    """Targets of one task; kept in memory where all of them are small."""

    def __init__(self, dataset: Dataset, task: str) -> None:
        self._dataset, self._task = dataset, task
        self._kept: dict[int, Any] = {}
        self._keep = _size_bytes(dataset.targets(0)[task]) * len(dataset) < TARGETS_LIMIT_BYTES

    def __call__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """The targets of some samples."""
        return [{self._task: self._one(i)} for i in indices]

    def _one(self, index: int) -> Any:
        if index in self._kept:
            return self._kept[index]
        target = self._dataset.targets(index)[self._task]
        if self._keep:
            self._kept[index] = target
        return target


def _size_bytes(target: Any) -> int:
    """Size of a map; anything else counts as a kilobyte."""
    return int(target.nbytes) if isinstance(target, (np.ndarray, Tensor)) else 1024
