"""A task whose metric is no function of sums: median of errors. For the contract of such tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.core.samples import Dataset, require_tasks
from fcbench.core.tasks import MetricSpec, RankingTask, TaskPlugin


class Head(nn.Linear):
    def predict(self, x: Tensor, batch: Tensor) -> Tensor:
        return self(x.mean((2, 3)))[:, 0]

    def loss(self, x: Tensor, batch: Tensor) -> Tensor:
        return (self.predict(x, batch) - batch).square().mean()


class Median(RankingTask):
    name, metrics, n_statistics = "median", (MetricSpec("error", False),), 1

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return Head(width, 1)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Tensor:
        return torch.tensor([float(t["classification"]) for t in targets])

    def statistics(self, prediction: Tensor, batch: Tensor) -> np.ndarray:
        return (prediction - batch).abs().detach().double().numpy()[:, None]

    @staticmethod
    def weighted_values(stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = [np.repeat(stats[:, 0], row) for row in weights.astype(int)]
        return {"error": np.array([np.median(each) if each.size else np.nan for each in drawn])}


class Plugin(TaskPlugin):
    def build(self, train: Dataset, test: Dataset) -> Median:
        require_tasks(["classification"], train, test)
        return Median()

    weighted_values = staticmethod(Median.weighted_values)
    values = RankingTask.values


PLUGIN = Plugin()
