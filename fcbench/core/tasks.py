"""Metrics, and what a neck, a task, a head and a task model must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import numpy as np
    import torch
    from torch import Tensor, nn

from fcbench.core.features import Encoder, FeatureSpec, WeightsInfo
from fcbench.core.samples import Dataset


class NeckPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/necks``."""

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        """A module from maps (dict of [B, C, h, w], coarser maps resized to the finest) to [B, D, h, w]."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A task's metric: accuracies are fractions in [0, 1] unless the unit says otherwise."""

    name: str
    higher_is_better: bool
    unit: str = ""
    protocol: str = ""  # what must be known to compare a value with published ones


class Task(Protocol):
    """A task on one data set: head, loss, metric.

    Metrics are functions of sums of per-sample statistics (mIoU of intersections and unions, BLEU of n-gram
    counts): so one table of statistics a point gives every value, every bootstrap interval and every pairing.
    """

    name: str
    metrics: tuple[MetricSpec, ...]  # the primary one first
    n_statistics: int  # S

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        """A new head: [B, D, h, w] to outputs that `loss` and `statistics` understand."""

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Any:
        """A batch of the data set's targets."""

    def loss(self, head: nn.Module, x: Any, batch: Any) -> Tensor:
        """Scalar training loss of a `Head` on what it reads."""

    def statistics(self, head: nn.Module, x: Any, batch: Any) -> np.ndarray:
        """Additive statistics of each sample's prediction, float64 [B, S]."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Metric values by name, [...], of summed statistics [..., S]; NaN where nothing was counted."""


class TaskPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/tasks``."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        """Bind to a data set (vocabulary and classes from train, reference statistics from test)."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """As `Task.values`, of sums kept on disk: no data set needed."""


class Head(Protocol):
    """A task's head, an ``nn.Module``: trained with the neck, or the frozen decoder of a task model.

    Its input x is what the neck (or the adapter to a frozen decoder) made: a tensor [B, D, h, w] for a trained head,
    maps by name for a frozen decoder. The batch is the task's own (`Task.collate`); a head may take from it what the
    official protocol gives a model at test time (boxes of persons, prompts), nothing else.
    """

    def loss(self, x: Any, batch: Any) -> Tensor:
        """Scalar training loss; gradients flow to x, also through frozen parameters."""

    def predict(self, x: Any, batch: Any) -> Any:
        """What the task's metric reads: see each task's module."""


class TaskModel(Protocol):
    """A task-specific model of others: its own encoder, and the decoder that a neck learns to speak to.

    Attributes:
        encoder: its own encoder; the features it gives at `inputs` are what the decoder was trained on, and the
            target of distillation.
        inputs: the decoder's input maps, names in ``encoder.specs``.
    """

    name: str  # as typed: "dpt:small"
    weights: WeightsInfo
    encoder: Encoder
    inputs: tuple[str, ...]

    def head(self) -> nn.Module:
        """The decoder as a frozen `Head`; its x is a dict of maps [B, C, h, w] by the names of `inputs`."""


class TaskModelPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/taskmodels``."""

    task: str  # the task it was trained for

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build with its weights (None: official or embedded; ``random``; a file), for images of a size.

        Raises `FcbenchError`: unknown variant, weights missing or of another architecture, an unfit task.
        """
