"""What reads the bottleneck's output: standardization, neck, and a head that is trained or another model's decoder.

maps --standardize--> neck --------------------------------> trained head
maps --standardize--> neck --adapter, one map an input--> frozen decoder of a task model
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.features import FeatureStats
from fcbench.core.tasks import Task
from fcbench.features.extract import FeatureStore
from fcbench.training import codec, loop
from fcbench.training.options import Budget
from fcbench.training.targets import Targets

NeckLoss = Literal["task", "distill", "both"]


class Standardize(nn.Module):
    """Features divided by their training deviation, after their training mean was taken away."""

    def __init__(self, stats: Mapping[str, FeatureStats]) -> None:
        super().__init__()
        self.names = tuple(stats)
        for i, name in enumerate(self.names):
            self.register_buffer(f"mean{i}", stats[name].mean.view(-1, 1, 1).clone())
            self.register_buffer(f"std{i}", stats[name].std.view(-1, 1, 1).clone())

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] as an encoder gives them to the same, standardized, on this module's device."""
        out = {}
        for i, name in enumerate(self.names):
            mean, std = getattr(self, f"mean{i}"), getattr(self, f"std{i}")
            out[name] = (maps[name].to(mean.device) - mean) / std
        return out


class Adapter(nn.Module):
    """Neck outputs to the input maps of a frozen decoder: a 1x1 convolution each, brought to the map's grid.

    Where a map is finer than the neck's grid, the convolution predicts its cells too (pixel shuffle). Outputs start at
    the scale of the decoder's own features.

    Args:
        width: D.
        grid: (h, w) of the neck's output.
        stats: of the decoder's own features, by input.
        grids: (h, w) of each input.
    """

    def __init__(
        self, width: int, grid: tuple[int, int], stats: Mapping[str, FeatureStats], grids: Mapping[str, tuple[int, int]]
    ) -> None:
        super().__init__()
        self.grids = {name: grids[name] for name in stats}
        self.convs, self.shuffles = nn.ModuleList(), nn.ModuleList()
        for i, (name, s) in enumerate(stats.items()):
            ratio = max(a / b for a, b in zip(grids[name], grid))
            factor = 2 ** max(0, round(math.log2(ratio)))
            self.convs.append(nn.Conv2d(width, len(s.mean) * factor**2, 1))
            self.shuffles.append(nn.PixelShuffle(factor))
            self.register_buffer(f"mean{i}", s.mean.view(-1, 1, 1).clone())
            self.register_buffer(f"std{i}", s.std.view(-1, 1, 1).clone())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, D, h, w] to maps [B, C, h', w'] by input."""
        out = {}
        for i, (name, grid) in enumerate(self.grids.items()):
            y = self.shuffles[i](self.convs[i](x))
            if any(a > b for a, b in zip(y.shape[-2:], grid)):
                y = F.adaptive_avg_pool2d(y, grid)
            elif tuple(y.shape[-2:]) != grid:
                y = F.interpolate(y, size=grid, mode="bilinear")
            out[name] = y * getattr(self, f"std{i}") + getattr(self, f"mean{i}")
        return out


class Readout(Standardize):
    """Neck and head over standardized features.

    A frozen head is no submodule: it is neither trained nor saved with the rest, and always in evaluation mode.

    Attributes:
        head: a `fcbench.core.tasks.Head`, which is an ``nn.Module``.
    """

    head: Any

    def __init__(
        self, stats: Mapping[str, FeatureStats], neck: nn.Module, head: nn.Module, adapter: Adapter | None = None
    ) -> None:
        super().__init__(stats)
        self.neck = neck
        self.adapter = adapter
        if adapter is None:
            self.head = head
        else:  # past nn.Module, which would make it a submodule
            self.__dict__["head"] = head.eval().requires_grad_(False)

    def forward(self, maps: Mapping[str, Tensor]) -> Any:
        """What the head reads of maps [B, C, h, w] by split point: [B, D, h, w], or maps by decoder input."""
        x = self.neck(super().forward(maps))
        return x if self.adapter is None else self.adapter(x)


def fit_readout(
    model: Readout,
    task: Task,
    store: FeatureStore,
    targets: Targets,
    own: FeatureStore | None,
    neck_loss: NeckLoss,
    budget: Budget,
    *,
    seed: int,
    resume: Path,
    progress: loop.Progress | None = None,
) -> float:
    """Train on uncoded training features: neck, and head or adapter. Returns the final training loss.

    Args:
        own: the task model's own features of the same samples, the target of distillation.
        neck_loss: ``task``; ``distill``, the mean squared difference of the adapter's maps from `own`, in units of
            its standard deviation; ``both``, their sum.
    """

    def loss_of(rng: np.random.Generator) -> Tensor:
        places = loop.draw(rng, len(store), budget.task_batch)
        x, losses = model(store.batch(places)), []
        if neck_loss != "distill":
            losses.append(model.head.loss(x, task.collate(targets(places))))
        if neck_loss != "task":
            assert own is not None
            losses.append(codec.normalized_mse(own.batch(places), x, own.stats()))
        return torch.stack(losses).sum()

    return loop.optimize(
        model, loss_of, steps=budget.task_steps, rate=budget.task_rate, seed=seed, resume=resume, progress=progress
    )


TaskLoss = Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]


def frozen_loss(model: Readout, task: Task, targets: Targets) -> TaskLoss:
    """Task loss of decoded features at places of the training split, through a finished neck and head."""

    def loss(maps: Mapping[str, Tensor], places: Sequence[int]) -> Tensor:
        return model.head.loss(model(maps), task.collate(targets(places)))

    return loss
