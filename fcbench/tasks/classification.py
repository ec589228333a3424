"""Image classification: top-1, top-5 for more than five classes, cross-entropy in bits.

A head's ``predict`` returns the classes' log-probabilities (natural), float [B, K]: their order gives the labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Dataset, require_tasks
from fcbench.core.tasks import MetricSpec, ProbabilisticHead, Task, TaskPlugin
from fcbench.tasks.shared.targets import ratio, require_same


class PoolHead(nn.Module, ProbabilisticHead):
    """Mean over the grid, then a linear layer: [B, D, h, w] to logits [B, K]."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        out: Tensor = self.linear(x.mean(dim=(2, 3)))
        return out

    def loss(self, x: Tensor, batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(self(x), batch.to(x.device))

    def predict(self, x: Tensor, batch: Tensor) -> Tensor:
        """Log-probabilities of the classes, float64 [B, K]."""
        return cast(Tensor, self(x)).double().log_softmax(-1)

    def log_likelihood(self, x: Tensor, batch: Tensor) -> Tensor:
        """Log-probability of each sample's class in nats: [B]."""
        return -F.cross_entropy(self(x), batch.to(x.device), reduction="none")


def classification_values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """``top1``, ``top5`` if it is one of the metrics, ``nll`` (bit), [...], of sums [..., S]."""
    names = ("top1", "top5", "nll") if sums.shape[-1] == 4 else ("top1", "nll")
    n = sums[..., -1]
    return {name: ratio(sums[..., i], n) for i, name in enumerate(names)}


class ClassificationTask(Task):
    """Classification into K classes. `n_classes`: K, at least 2."""

    name = "classification"

    def __init__(self, n_classes: int) -> None:
        if n_classes < 2:
            raise FcbenchError(f"classification needs at least 2 classes, got {n_classes}")
        self.n_classes = n_classes
        self.ranks = (1, 5) if n_classes > 5 else (1,)
        self.metrics = (*(MetricSpec(f"top{k}", True) for k in self.ranks), MetricSpec("nll", False, "bit"))
        self.n_statistics = len(self.ranks) + 2

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return PoolHead(width, self.n_classes)

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Tensor:
        """Class indices, int64 [B]."""
        labels = [int(t[self.name]) for t in targets]
        wrong = [v for v in labels if not 0 <= v < self.n_classes]
        if wrong:
            raise FcbenchError(f"class index must be 0 to {self.n_classes - 1}, got {wrong[0]}: check the label list")
        return torch.tensor(labels, dtype=torch.int64)

    def statistics(self, prediction: Tensor, batch: Tensor) -> np.ndarray:
        """Whether the class is among the first k (for each k), cross-entropy in bits, 1: float64 [B, S]."""
        log_probs = prediction.detach().cpu().double()
        nll_bits = F.nll_loss(log_probs, batch, reduction="none") / math.log(2)
        order = log_probs.topk(max(self.ranks), dim=1).indices == batch[:, None]
        hits = [order[:, :k].any(dim=1).double() for k in self.ranks]
        return torch.stack([*hits, nll_bits, torch.ones_like(nll_bits)], 1).numpy()

    values = staticmethod(classification_values)


class ClassificationPlugin(TaskPlugin):
    """Classification."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        require_tasks(["classification"], train, test)
        names = require_same("labels", train.meta.label_names, test.meta.label_names)
        return ClassificationTask(len(names))

    values = staticmethod(classification_values)


PLUGIN = ClassificationPlugin()
