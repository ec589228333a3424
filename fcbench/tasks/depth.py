"""Metric depth: RMSE, absolute relative error, share of pixels within 25 %.

The head predicts the logarithm of depth at stride 4, in units of its training mean and deviation, and is trained there
(Huber loss, on the target pixel under each cell's centre). It is evaluated at full resolution: the logarithm is resized
(bilinear), and depth clamped to [`MIN_DEPTH_M`, max_depth_m]. Valid pixels are those with depth > 0; errors are pooled
over all valid pixels of the set, not averaged by image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.tasks._common import ratio, require, require_size, stack_maps
from fcbench.tasks._dense import DenseHead
from fcbench.types import Dataset, FcbenchError, MetricSpec, Task

MIN_DEPTH_M = 1e-3
"""Smallest predicted depth (the lower bound of the usual NYU and KITTI evaluations)."""

SAMPLES_FOR_SCALE = 64
"""Training samples from which the mean and deviation of log depth are taken."""


def depth_sums(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sums over the valid pixels of each sample, float64 [B, 4].

    They are squared error (m^2), absolute relative error, pixels with max(p/t, t/p) < 1.25, valid pixels.

    Args:
        pred: [B, H, W] metres, above 0.
        target: [B, H, W] metres, 0 where invalid.

    References:
        Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014.
    """
    rows = []
    for p, t in zip(pred, target):
        valid = t > 0
        p, t = p[valid].astype(np.float64), t[valid].astype(np.float64)
        off = p - t
        inside = np.maximum(p / t, t / p) < 1.25
        rows.append(
            [np.sum(off**2), np.sum(np.abs(off) / t), np.sum(inside), valid.sum()]
        )
    return np.asarray(rows, np.float64).reshape(len(pred), 4)


def log_depth_scale(data: Dataset) -> tuple[float, float]:
    """Mean and standard deviation of log depth (m) over the first valid training pixels.

    Raises:
        FcbenchError: no pixel is valid.
    """
    values = []
    for i in range(min(len(data), SAMPLES_FOR_SCALE)):
        depth = np.asarray(data.targets(i)["depth"], np.float64)
        values.append(np.log(depth[depth > 0]))
    logs = np.concatenate(values) if values else np.empty(0)
    if not logs.size:
        raise FcbenchError(
            f"data set {data.name!r} ({data.split}) has no valid depth pixel (depth > 0) "
            f"in its first {SAMPLES_FOR_SCALE} samples"
        )
    return float(logs.mean()), max(float(logs.std()), 1e-3)


class DepthHead(nn.Module):
    """Log depth: [B, D, h, w] to [B, 1, h', w'], log of metres.

    Args:
        dense: maps to standardized log depth.
        mean: mean of log depth.
        std: deviation of log depth.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dense: DenseHead, mean: float, std: float) -> None:
        super().__init__()
        self.dense = dense
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, h', w'], log of metres."""
        out: Tensor = self.dense(x) * self.std + self.mean
        return out


class DepthTask:
    """Depth in metres.

    Args:
        max_depth_m: predictions are clamped to it.
        log_mean: mean of the training split's log depth.
        log_std: its standard deviation.
    """

    name = "depth"
    metrics: tuple[MetricSpec, ...] = (
        MetricSpec("rmse", False, "m"),
        MetricSpec("abs_rel", False),
        MetricSpec("delta1", True),
    )
    n_statistics = 4

    def __init__(self, max_depth_m: float, log_mean: float, log_std: float) -> None:
        self.max_depth_m = max_depth_m
        self.log_mean = log_mean
        self.log_std = log_std

    def head(
        self, width: int, grid: tuple[int, int], image_px: tuple[int, int]
    ) -> nn.Module:
        """A new head: [B, D, h, w] to log depth [B, 1, h', w']."""
        dense = DenseHead(width, grid, image_px, 1)
        return DepthHead(dense, self.log_mean, self.log_std)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Tensor:
        """Depth maps, float32 [B, H, W] metres.

        Raises:
            FcbenchError: sizes differ, or a depth is negative or not finite.
        """
        maps = stack_maps(targets, self.name, np.float32)
        if not np.isfinite(maps).all() or (maps < 0).any():
            raise FcbenchError(
                "a depth map holds negative, infinite or NaN values; metres >= 0 are allowed, 0 where invalid"
            )
        return torch.from_numpy(maps)

    def loss(self, head: nn.Module, x: Tensor, batch: Tensor) -> Tensor:
        """Mean Huber loss of standardized log depth over the valid cells, at the head's resolution.

        Raises:
            FcbenchError: the maps do not have the images' size.
        """
        own = cast(DepthHead, head)
        require_size(self.name, batch.shape, own.dense.image_px)
        logs = own(x)[:, 0]
        size = (logs.shape[-2], logs.shape[-1])
        target = own.dense.at_centres(batch.to(x.device), size, 0)
        valid = target > 0
        wanted = torch.where(valid, target, torch.ones_like(target)).log()
        each = F.huber_loss(logs / own.std, wanted / own.std, reduction="none")
        return (each * valid).sum() / valid.sum().clamp(min=1)

    def statistics(self, head: nn.Module, x: Tensor, batch: Tensor) -> np.ndarray:
        """Sums of `depth_sums`, float64 [B, 4].

        Raises:
            FcbenchError: the maps do not have the images' size.
        """
        own = cast(DepthHead, head)
        require_size(self.name, batch.shape, own.dense.image_px)
        with torch.no_grad():
            logs = own.dense.full(own(x))[:, 0]
        low, high = math.log(MIN_DEPTH_M), math.log(self.max_depth_m)
        metres = logs.clamp(low, high).exp()
        return depth_sums(metres.cpu().numpy(), batch.cpu().numpy())

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """``rmse`` (m), ``abs_rel`` and ``delta1``, [...], of sums [..., 4]."""
        n = sums[..., 3]
        return {
            "rmse": np.sqrt(ratio(sums[..., 0], n)),
            "abs_rel": ratio(sums[..., 1], n),
            "delta1": ratio(sums[..., 2], n),
        }


class DepthPlugin:
    """Plug-in of the task."""

    summary = "metric depth: RMSE, AbsRel, delta < 1.25"

    def build(self, train: Dataset, test: Dataset) -> Task:
        """Bind to a data set.

        Raises:
            FcbenchError: it has no depth, states no largest depth, or has no valid pixel.
        """
        require("depth", train, test)
        max_depth_m = train.meta.max_depth_m
        if max_depth_m is None or max_depth_m <= MIN_DEPTH_M:
            raise FcbenchError(
                f"data set {train.name!r} states max_depth_m = {max_depth_m}; "
                f"depth needs a number above {MIN_DEPTH_M}"
            )
        return DepthTask(max_depth_m, *log_depth_scale(train))


PLUGIN = DepthPlugin()
