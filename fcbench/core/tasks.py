"""Metrics, and the protocols of necks, tasks, heads and task models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, FeatureSpec, WeightsInfo
from fcbench.core.samples import Dataset

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn


class NeckPlugin(Protocol):
    """``PLUGIN`` of a module in ``fcbench/necks``. Subclass it to inherit the default."""

    # depth of the neck: cross-neck analysis looks for one with the depth of two together; None if depth means
    # nothing
    n_layers: int | None = None

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        """Build a neck, initialized from torch's generator.

        It takes a dict of standardized maps [B, C, h, w] and returns [B, D, h, w] at the grid of the finest map;
        coarser maps are resized to it. `specs`: split points, fine to coarse. `shapes`: (h, w) of each map. `width`: D.
        Raises `FcbenchError`: no split point, a missing shape, or an unsupported width.
        """


class Head(Protocol):
    """A task's head, an ``nn.Module``: trained with the neck, or the frozen decoder of a task model.

    Its input x comes from the neck or from the adapter to a frozen decoder: a tensor [B, D, h, w] for a trained head,
    maps [B, C, h, w] by name for a frozen decoder. The batch comes from `Task.collate`; a head may use only what the
    official protocol gives a model at test time (boxes of persons, prompts).
    """

    def loss(self, x: Any, batch: Any) -> Tensor:
        """Scalar training loss; gradients flow to x, also through frozen parameters. Raises `FcbenchError`: x or the
        batch does not fit the head."""

    def predict(self, x: Any, batch: Any) -> Any:
        """Prediction in the form that `Task.statistics` reads; each task's module says which. Raises `FcbenchError`: x
        or the batch does not fit the head."""


@runtime_checkable
class ProbabilisticHead(Head, Protocol):
    """A head that states a probability of each sample's target."""

    def log_likelihood(self, x: Any, batch: Any) -> Tensor:
        """Log-probability of each sample's target in nats: [B]. It must be finite."""


@runtime_checkable
class ScaledHead(Head, Protocol):
    """A head that states a density of each sample's target, up to a scale that is fitted on training samples."""

    def log_density(self, x: Any, batch: Any, scale: float) -> Tensor:
        """Log-density of each sample's target in nats: [B], for a scale above 0 in units of the target's deviation."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A task's metric; accuracies are fractions in [0, 1] unless the unit says otherwise."""

    name: str
    higher_is_better: bool
    unit: str = ""
    protocol: str = ""  # needed to compare a value with published ones


class Task(Protocol):
    """A task on one data set: its heads, batches and metrics.

    Metrics are functions of sums of per-sample statistics (mIoU of intersections and unions, BLEU of n-gram counts), or
    of the samples' statistics and how often each sample counts (`RankingTask`): one table of statistics per point gives
    every value, every bootstrap interval and every pairing.
    """

    name: str  # of the plug-in
    metrics: tuple[MetricSpec, ...]  # the primary one first
    n_statistics: int  # S, numbers per sample from which `values` computes the metrics

    def head(self, width: int, grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        """Build a `Head`, initialized from torch's generator.

        `width`: D of its input [B, D, h, w]. `grid`: (h, w) of its input. `image_px`: (H, W) of the images and of their
        targets. Raises `FcbenchError`: an unsupported width.
        """

    def collate(self, targets: Sequence[Mapping[str, Any]]) -> Any:
        """A batch of targets, each as `Dataset.targets` returns it. In a tensor [B, ...], row i is target i. Raises
        `FcbenchError`: a target is not of the task's documented form, or the targets do not fit each other."""

    def statistics(self, prediction: Any, batch: Any) -> np.ndarray:
        """Additive statistics of each sample, float64 [B, S], from a prediction of `Head.predict` and its batch. They
        do not depend on how samples are batched. Raises `FcbenchError`: the prediction does not fit the batch."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Metric values by name, [...], of summed statistics [..., S]; NaN if nothing was counted."""


@runtime_checkable
class Ranking(Protocol):
    """Part of a task, and of its plug-in, whose metrics rank samples against each other and so are no functions of
    sums. Use `metric_values` to get values of any task."""

    def weighted_values(self, stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metric values by name, [R], of samples counted `weights` times; NaN if nothing was counted. `stats`: [N, S]
        of `Task.statistics`. `weights`: [R, N], whole numbers."""


class RankingTask(Task, Ranking, Protocol):
    """A `Task` whose metrics are not functions of sums."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Raise `FcbenchError`: sums do not determine the metrics."""
        raise FcbenchError("this task's metrics rank samples: use weighted_values of the samples' statistics, not sums")


class Collector(Protocol):
    """Takes all test samples of a point, batch by batch, as a head predicts them."""

    def add(self, prediction: Any, batch: Any) -> None:
        """Take a batch."""

    def statistics(self) -> np.ndarray:
        """Statistics of each sample that all together determine, float64 [N, K]. Raises `FcbenchError`: there are
        none."""


@runtime_checkable
class Collecting(Protocol):
    """What a task has whose last statistics only all test samples together determine."""

    def collecting(self) -> AbstractContextManager[Collector | None]:
        """A new collector; None where there is nothing to collect."""


def metric_values(task: Task | TaskPlugin | Ranking, stats: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metric values by name, [R], of samples with statistics [N, S], counted `weights` times [R, N]."""
    if isinstance(task, Ranking):
        return task.weighted_values(stats, weights)
    return task.values(weights @ stats)


class TaskPlugin(Protocol):
    """``PLUGIN`` of a module in ``fcbench/tasks``."""

    def build(self, train: Dataset, test: Dataset) -> Task:
        """Build the task on a data set: vocabulary and classes from train, reference statistics from test. Raises
        `FcbenchError`: a split lacks the task's targets or facts, or the splits do not fit each other."""

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """`Task.values` of sums kept on disk, without a data set."""


class TaskModel(Protocol):
    """A third-party model trained for one task: its own encoder, and its decoder as a frozen head."""

    name: str  # as typed: "dpt:small"
    weights: WeightsInfo  # their origin
    # its own encoder; its features at `inputs` are what the decoder was trained on, and the target of distillation.
    # Their grids are the decoder's and need not follow from strides.
    encoder: Encoder
    inputs: tuple[str, ...]  # names in ``encoder.specs`` of the maps that the decoder reads, in its order

    def head(self) -> nn.Module:
        """The decoder as a frozen `Head`; its x is a dict of maps [B, C, h, w] by the names of `inputs`."""


class TaskModelPlugin(Protocol):
    """``PLUGIN`` of a module in ``fcbench/taskmodels``."""

    task: str  # name of the task that its models were trained for

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build a task model with its weights, for images of one size.

        `variant`: what follows the colon; empty for the default. `weights`: None for official or embedded ones,
        ``random``, or the path of a file or folder. `task`: the task on its data set. `image_px`: (H, W) of the images.
        `device`: where encoder and decoder run. Raises `FcbenchError`: another task, unknown variant, a data set or
        image size that the model cannot serve, weights missing or of another architecture.
        """


@runtime_checkable
class Tail(Head, Protocol):
    """The layers of a network after a split point, frozen, as a task's `Head`: an ``nn.Module``. Its x is a dict of
    maps [B, C, h, w] by split point."""

    label_names: tuple[str, ...]  # of the network's outputs, in order; empty for a task without classes

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss of the tail's output for decoded maps against that for uncoded ones; needs no labels."""


@runtime_checkable
class TailedEncoder(Encoder, Protocol):
    """An encoder that is the front of a complete network."""

    # by task: split points, and groups of them, that have a tail
    tails: Mapping[str, tuple[str, ...]]

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """The `Tail` after a split point or group that `tails` names, on the encoder's device. `image_px`: (H, W) of
        the images. Raises `FcbenchError`: front and tail do not add up to the network for images of this size."""


def build_tail(encoder: Encoder, task: str, split_points: Sequence[str], image_px: tuple[int, int]) -> Any:
    """The `Tail` of an encoder after split points. Raises `FcbenchError`: there is none; the message names the split
    points that have one."""
    tails: Mapping[str, tuple[str, ...]] = encoder.tails if isinstance(encoder, TailedEncoder) else {}
    if not any(tails.values()):
        raise FcbenchError(f"{encoder.name} has no tail at any split point: --head tail needs one, use --head trained")
    if task not in tails:
        raise FcbenchError(f"{encoder.name} has no tail for {task}: it has one for {', '.join(tails)}")
    named = [name for name in tails[task] if encoder.groups.get(name, (name,)) == tuple(split_points)]
    if not named:
        raise FcbenchError(
            f"{encoder.name} has no tail at {'+'.join(split_points)}: "
            f"--split-point must be one of {', '.join(tails[task])}"
        )
    assert isinstance(encoder, TailedEncoder)
    return encoder.tail(task, named[0], image_px)


def require_labels(network: str, stated: Sequence[str], dataset: str, labels: Sequence[str]) -> None:
    """Refuse a data set whose classes differ from a network's in number, names or order. Raises `FcbenchError`."""
    if len(stated) != len(labels):
        raise FcbenchError(
            f"data set {dataset!r} has {len(labels)} classes, {network} states {len(stated)} "
            f"({', '.join(stated[:3])}, ...): a tail needs the network's own (--dataset imagenet1k for ImageNet's 1000)"
        )
    for i, (a, b) in enumerate(zip(stated, labels)):
        if a != b:
            raise FcbenchError(
                f"class {i} of data set {dataset!r} is {b!r}, of {network} {a!r}: labels must be the same"
            )
