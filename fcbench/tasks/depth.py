"""Metric depth: RMSE, absolute relative error, share of pixels within 25 %.

The head predicts the logarithm of depth at stride 4, in units of its training mean and deviation, and is trained at
that resolution (Huber loss, on the target pixel under each cell's centre). It is evaluated at full resolution: the
logarithm is resized (bilinear), and depth clamped to [`MIN_DEPTH_M`, max_depth_m]. Errors are pooled over all valid
pixels (depth > 0) of the set. Inside the crop of a published evaluation (``DatasetMeta.eval_crop``), ``rmse_eigen``,
``abs_rel_eigen`` and ``delta1_eigen`` are computed as in published tables: per image, then the mean over images.

A head's ``predict`` returns metres, float32 [B, H, W], at the targets' size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset, require_tasks
from fcbench.core.tasks import MetricSpec, ScaledHead, Task, TaskPlugin
from fcbench.tasks.shared.dense import DenseHead
from fcbench.tasks.shared.targets import ratio, require_maps, require_size, stack_maps

MIN_DEPTH_M = 1e-3  # Smallest predicted depth (the lower bound of the usual NYU and KITTI evaluations)
POOLED = "pooled over valid pixels"
EIGEN = "mean of images, Eigen crop"
METRICS = (
    MetricSpec("rmse", False, "m", POOLED),
    MetricSpec("abs_rel", False, "", POOLED),
    MetricSpec("delta1", True, "", POOLED),
)
EIGEN_METRICS = (
    MetricSpec("rmse_eigen", False, "m", EIGEN),
    MetricSpec("abs_rel_eigen", False, "", EIGEN),
    MetricSpec("delta1_eigen", True, "", EIGEN),
)

SAMPLES_FOR_SCALE = 64  # Training samples for the mean and deviation of log depth


def depth_sums(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sums over the valid pixels of each sample, float64 [B, 4].

    The sums are squared error (m^2), absolute relative error, pixels with max(p/t, t/p) < 1.25, valid pixels. `pred`:
    [B, H, W] metres, above 0. `target`: [B, H, W] metres, 0 where invalid.

    References:
        Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014.
    """
    rows = []
    for p, t in zip(pred, target):
        valid = t > 0
        p, t = p[valid].astype(np.float64), t[valid].astype(np.float64)
        off = p - t
        inside = np.maximum(p / t, t / p) < 1.25
        rows.append([np.sum(off**2), np.sum(np.abs(off) / t), np.sum(inside), valid.sum()])
    return np.asarray(rows, np.float64).reshape(len(pred), 4)


def crop_slices(crop: tuple[float, float, float, float], size_px: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a crop (top, bottom, left, right as shares) in a map of (H, W).

    >>> crop_slices((45 / 480, 471 / 480, 41 / 640, 601 / 640), (480, 640))
    (slice(45, 471, None), slice(41, 601, None))
    """
    top, bottom, left, right = crop
    rows = slice(round(top * size_px[0]), round(bottom * size_px[0]))
    return rows, slice(round(left * size_px[1]), round(right * size_px[1]))


def image_means(sums: np.ndarray) -> np.ndarray:
    """RMSE (m), absolute relative error, share within 25 % and 1 of each image, [B, 4]; zeros without a valid pixel.
    `sums`: [B, 4] of `depth_sums`."""
    n = sums[:, 3:]
    means = np.divide(sums, n, out=np.zeros_like(sums), where=n > 0)
    means[:, 0] = np.sqrt(means[:, 0])
    return means


def log_depth_scale(data: Dataset) -> tuple[float, float]:
    """Mean and standard deviation of log depth (m) over the first valid training pixels."""
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


class DepthHead(nn.Module, ScaledHead):
    """Log depth: [B, D, h, w] to [B, 1, h', w'], log of metres. `dense`: maps to standardized log depth. `mean`: mean
    of log depth. `std`: deviation of log depth. `max_depth_m`: largest depth that it predicts."""

    mean: Tensor
    std: Tensor

    def __init__(self, dense: DenseHead, mean: float, std: float, max_depth_m: float) -> None:
        super().__init__()
        self.dense = dense
        self.max_depth_m = max_depth_m
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, h', w'], log of metres."""
        out: Tensor = self.dense(x) * self.std + self.mean
        return out

    def loss(self, x: Tensor, batch: Tensor) -> Tensor:
        """Mean Huber loss of standardized log depth over the valid cells, at the head's resolution."""
        pred, expected, valid = self._with_targets(x, batch)
        each = F.huber_loss(pred, expected, reduction="none")
        return (each * valid).sum() / valid.sum().clamp(min=1)

    def predict(self, x: Tensor, batch: Tensor) -> Tensor:
        """Metres in [`MIN_DEPTH_M`, max_depth_m] at the images' size, float32 [B, H, W]."""
        logs = self.dense.full(self(x))[:, 0]
        return logs.clamp(math.log(MIN_DEPTH_M), math.log(self.max_depth_m)).exp()

    def log_density(self, x: Tensor, batch: Tensor, scale: float) -> Tensor:
        """Log-density of each sample's depth in nats, summed over the valid cells: [B]. The density is that of a
        Laplace distribution of standardized log depth: log p = -|z - prediction| / scale - log(2 scale)."""
        pred, expected, valid = self._with_targets(x, batch)
        each = -(pred - expected).abs() / scale - math.log(2 * scale)
        return (each * valid).flatten(1).sum(1)

    def _with_targets(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardized log depth, predicted and true, and where it is valid: each [B, h', w']."""
        require_size("depth", batch.shape, self.dense.image_px)
        logs = self(x)[:, 0]
        size = (logs.shape[-2], logs.shape[-1])
        target = self.dense.at_centres(batch.to(x.device), size, 0)
        valid = target > 0
        expected = torch.where(valid, target, torch.ones_like(target)).log()
        return logs / self.std, expected / self.std, valid


def depth_values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``rmse`` (m), ``abs_rel`` and ``delta1``, [...], of sums [..., S]; with a crop, also the same inside it."""
    n = sums[..., 3]
    pooled = {
        "rmse": np.sqrt(ratio(sums[..., 0], n)),
        "abs_rel": ratio(sums[..., 1], n),
        "delta1": ratio(sums[..., 2], n),
    }
    cropped = {
        m.name: ratio(sums[..., 4 + i], sums[..., 7])
        for i, m in enumerate(EIGEN_METRICS if sums.shape[-1] == 8 else ())
    }
    return pooled | cropped


class DepthTask(Task):
    """Depth in metres.

    `max_depth_m`: predictions are clamped to it. `log_mean`: mean of the training split's log depth. `log_std`: its
    standard deviation. `eval_crop`: crop of a published evaluation: top, bottom, left, right as shares of the image.
    """

    name = "depth"

    def __init__(
        self,
        max_depth_m: float,
        log_mean: float,
        log_std: float,
        eval_crop: tuple[float, float, float, float] | None = None,
    ) -> None:
        self.max_depth_m = max_depth_m
        self.log_mean = log_mean
        self.log_std = log_std
        self.eval_crop = eval_crop
        self.metrics: tuple[MetricSpec, ...] = METRICS if eval_crop is None else (*METRICS, *EIGEN_METRICS)
        self.n_statistics = 4 if eval_crop is None else 8

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        dense = DenseHead(width, grid, image_px, 1)
        return DepthHead(dense, self.log_mean, self.log_std, self.max_depth_m)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Tensor:
        """Depth maps, float32 [B, H, W] metres."""
        maps = stack_maps(targets, self.name, np.float32)
        if not np.isfinite(maps).all() or (maps < 0).any():
            raise FcbenchError(
                "a depth map holds negative, infinite or NaN values; metres >= 0 are allowed, 0 where invalid"
            )
        return torch.from_numpy(maps)

    def statistics(self, prediction: Tensor, batch: Tensor) -> np.ndarray:
        """`depth_sums` of predictions clamped to [`MIN_DEPTH_M`, max_depth_m]: float64 [B, 4]. With a crop,
        `image_means` inside it follow: [B, 8]."""
        require_maps(self.name, prediction, batch)
        pred = prediction.detach().clamp(MIN_DEPTH_M, self.max_depth_m).cpu().numpy()
        target = batch.cpu().numpy()
        sums = depth_sums(pred, target)
        if self.eval_crop is None:
            return sums
        rows, columns = crop_slices(self.eval_crop, (target.shape[1], target.shape[2]))
        cropped = depth_sums(pred[:, rows, columns], target[:, rows, columns])
        return np.concatenate([sums, image_means(cropped)], axis=1)

    values = staticmethod(depth_values)


class DepthPlugin(TaskPlugin):
    """Depth."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        require_tasks(["depth"], train, test)
        max_depth_m = train.meta.max_depth_m
        if max_depth_m is None or max_depth_m <= MIN_DEPTH_M:
            raise FcbenchError(
                f"data set {train.name!r} states max_depth_m = {max_depth_m}; "
                f"depth needs a number above {MIN_DEPTH_M}"
            )
        crop = test.meta.eval_crop
        return DepthTask(max_depth_m, *log_depth_scale(train), crop)

    values = staticmethod(depth_values)


PLUGIN = DepthPlugin()
