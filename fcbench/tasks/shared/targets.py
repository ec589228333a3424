"""Checks of data sets, targets and predictions, and ratios of sums."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fcbench.core.errors import FcbenchError


def require_same(what: str, train: Sequence[str], test: Sequence[str]) -> tuple[str, ...]:
    """Names that both splits use. Raises `FcbenchError`: they differ or are missing."""
    if not train:
        raise FcbenchError(f"the data set names no {what}; its meta must list them")
    if tuple(train) != tuple(test):
        raise FcbenchError(
            f"train and test differ in their {what}: {len(train)} ({', '.join(train[:4])}, ...) "
            f"and {len(test)} ({', '.join(test[:4])}, ...)"
        )
    return tuple(train)


def stack_maps(targets: Sequence[Mapping[str, Any]], key: str, dtype: type[np.generic]) -> np.ndarray:
    """Targets that are maps, as one array [B, H, W]. Raises `FcbenchError`: one is not a map [H, W], or their sizes
    differ."""
    maps = [np.asarray(t[key], dtype=dtype) for t in targets]
    shapes = sorted({m.shape for m in maps})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise FcbenchError(
            f"{key} targets of one batch must be [H, W] of one size, got the shapes {shapes}: give an --image-size"
        )
    return np.stack(maps)


def require_size(key: str, shape: Sequence[int], image_px: tuple[int, int]) -> None:
    """Refuse target maps whose size differs from the image's."""
    if tuple(shape[-2:]) != tuple(image_px):
        raise FcbenchError(
            f"{key} targets are {shape[-2]}x{shape[-1]} px (H x W), the images "
            f"{image_px[0]}x{image_px[1]} px; a target must have its image's size"
        )


def require_maps(key: str, prediction: Tensor, batch: Tensor) -> None:
    """Refuse predicted maps whose shape differs from the targets'."""
    require_size(key, batch.shape, (prediction.shape[-2], prediction.shape[-1]))
    if prediction.shape != batch.shape:
        raise FcbenchError(
            f"a head predicted {key} of the shape {tuple(prediction.shape)}, expected {tuple(batch.shape)} (B x H x W)"
        )


def ratio(num: np.ndarray, den: np.ndarray) -> np.ndarray:
    """num / den, NaN where den is 0."""
    num, den = np.broadcast_arrays(np.asarray(num, np.float64), np.asarray(den, np.float64))
    return np.divide(num, den, out=np.full(num.shape, np.nan), where=den > 0)
