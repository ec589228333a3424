"""What the tasks share: checks of data sets, targets and predictions, and ratios of sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset


def require(task: str, *datasets: Dataset) -> None:
    """Refuse data sets that do not carry the task.

    Raises:
        FcbenchError: one does not carry it.
    """
    for data in datasets:
        if task not in data.tasks:
            raise FcbenchError(
                f"data set {data.name!r} ({data.split}) has no targets for task {task!r}; "
                f"it has: {', '.join(data.tasks) or 'none'}"
            )


def require_same(what: str, train: Sequence[str], test: Sequence[str]) -> tuple[str, ...]:
    """The names that both splits use.

    Raises:
        FcbenchError: there are none, or the splits differ.
    """
    if not train:
        raise FcbenchError(f"the data set names no {what}; its meta must list them")
    if tuple(train) != tuple(test):
        raise FcbenchError(
            f"train and test differ in their {what}: {len(train)} ({', '.join(train[:4])}, ...) "
            f"and {len(test)} ({', '.join(test[:4])}, ...)"
        )
    return tuple(train)


def stack_maps(targets: Sequence[Mapping[str, Any]], key: str, dtype: type[np.generic]) -> np.ndarray:
    """Targets that are maps, as one array [B, H, W].

    Raises:
        FcbenchError: one is not a map [H, W], or their sizes differ.
    """
    maps = [np.asarray(t[key], dtype=dtype) for t in targets]
    shapes = sorted({m.shape for m in maps})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise FcbenchError(
            f"{key} targets of one batch have the shapes {shapes}; they must be [H, W] and equal. "
            "Give an image size so that all are resized alike"
        )
    return np.stack(maps)


def require_size(key: str, came: Sequence[int], image_px: tuple[int, int]) -> None:
    """Refuse target maps of another size than the image's.

    Raises:
        FcbenchError: the size differs.
    """
    if tuple(came[-2:]) != tuple(image_px):
        raise FcbenchError(
            f"{key} targets are {came[-2]}x{came[-1]} px (H x W), the images "
            f"{image_px[0]}x{image_px[1]} px; a target must have its image's size"
        )


def require_maps(key: str, came: Tensor, batch: Tensor) -> None:
    """Refuse predicted maps that do not lie pixel by pixel on the targets.

    Raises:
        FcbenchError: the shapes differ.
    """
    require_size(key, batch.shape, (came.shape[-2], came.shape[-1]))
    if came.shape != batch.shape:
        raise FcbenchError(
            f"a head predicted {key} of the shape {tuple(came.shape)}; "
            f"the targets have {tuple(batch.shape)} (B x H x W)"
        )


def ratio(num: np.ndarray, den: np.ndarray) -> np.ndarray:
    """num / den, NaN where den is 0."""
    num, den = np.broadcast_arrays(np.asarray(num, np.float64), np.asarray(den, np.float64))
    return np.divide(num, den, out=np.full(num.shape, np.nan), where=den > 0)
