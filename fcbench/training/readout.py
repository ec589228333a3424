"""What reads the bottleneck's output: standardization, neck, and a head that is trained or another model's decoder.

maps --standardize--> neck --------------------------------> trained head
maps --standardize--> neck --adapter, one map an input--> frozen decoder of a task model
maps ----------------------------------------------------> tail: the rest of the encoder's own network, as it is
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.cache import Cache, digest, kept
from fcbench.core.features import FeatureStats
from fcbench.core.libraries import code_of
from fcbench.core.progress import Advance, Report
from fcbench.core.registry import BFLOAT16, COMPILED
from fcbench.core.tasks import Task, TaskModel
from fcbench.features import encoding
from fcbench.features.devices import moved
from fcbench.features.feature_set import FeatureSet, batches_of, is_repeated
from fcbench.features.source import Readable, Source, reported_extract
from fcbench.features.statistics import normalized_mse, stats_of
from fcbench.training import loop, records
from fcbench.training.convergence import Record
from fcbench.training.options import PREPARE_SAMPLES, VERSION, Budget
from fcbench.training.targets import Batches, Targets

NeckLoss = Literal["task", "distill", "both"]
TaskLoss = Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]
"""Loss of decoded maps of training samples, through a frozen neck and head."""


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

    Args:
        in_bfloat16: matrix products and convolutions of the neck, by autocast; the head, whose likelihoods count, and
            the loss stay float32.

    Attributes:
        head: a `fcbench.core.tasks.Head`, which is an ``nn.Module``.
    """

    head: Any

    def __init__(
        self,
        stats: Mapping[str, FeatureStats],
        neck: nn.Module,
        head: nn.Module,
        adapter: Adapter | None = None,
        in_bfloat16: bool = False,
    ) -> None:
        super().__init__(stats)
        self.neck, self._in_bfloat16 = neck, in_bfloat16
        self.adapter = adapter
        if adapter is None:
            self.head = head
        else:  # past nn.Module, which would make it a submodule
            self.__dict__["head"] = head.eval().requires_grad_(False)

    def forward(self, maps: Mapping[str, Tensor]) -> Any:
        """What the head reads of maps [B, C, h, w] by split point: [B, D, h, w], or maps by decoder input.

        It reads a sample that is repeated once: a step of a null model then takes a third of the time.
        """
        n = len(next(iter(maps.values())))
        once = all(is_repeated(m) for m in maps.values())
        x = self.neck_output({k: m[:1] for k, m in maps.items()} if once else maps)
        x = x if self.adapter is None else self.adapter(x)
        return _repeated(x, n) if once else x

    def neck_output(self, maps: Mapping[str, Tensor]) -> Tensor:
        """What the neck makes of maps [B, C, h, w]: [B, D, h, w] float32, before any adapter."""
        x = super().forward(maps)
        device = next(iter(x.values())).device
        with torch.autocast(device.type, torch.bfloat16) if self._in_bfloat16 else nullcontext():
            out: Tensor = self.neck(x)
        return out.float()


class TailReadout(nn.Module):
    """A tail as a readout: it reads decoded maps as they are.

    Attributes:
        head: a `fcbench.core.tasks.Tail`.
    """

    neck = adapter = None

    def __init__(self, tail: Any) -> None:
        super().__init__()
        self.head = tail

    def forward(self, maps: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The maps [B, C, h, w]."""
        return maps


def _repeated(x: Any, n: int) -> Any:
    """Tensors [1, ...], one or several by name, as [n, ...]."""
    if isinstance(x, Tensor):
        return x.expand(n, *x.shape[1:])
    return {name: _repeated(one, n) for name, one in x.items()}


@dataclass(frozen=True, slots=True)
class ReadoutRecipe:
    """All that determines a readout.

    Attributes:
        decoder: the task model whose frozen decoder reads; None where the head is trained.
        neck_loss: what trains the neck before a frozen decoder.
        tail: the `fcbench.core.tasks.Tail` that reads; None where neck and head do.
    """

    source: Source
    task: Task
    neck: str
    budget: Budget
    seed: int
    decoder: TaskModel | None = None
    neck_loss: NeckLoss = "task"
    tail: Any = None

    @property
    def key(self) -> str:
        """Name of the readout in the cache."""
        if self.tail is not None:  # of the encoder's weights alone, which the features' key holds
            return digest({"features": self.source.train.features.key, "task": self.task.name, "tail": True})
        contents = {
            "version": VERSION,
            "features": self.source.train.features.key,
            "task": self.task.name,
            "neck": self.neck,
            "code": [registry.code_version("neck", self.neck), registry.code_version("task", self.task.name)],
            "seed": self.seed,
            "budget": self.budget.of_readout,
        }
        if self.decoder is not None:
            contents |= {
                "decoder": self.decoder.name,
                "sha256": self.decoder.weights.sha256,
                "libraries": code_of(self.decoder.encoder),
                "neck_loss": self.neck_loss,
            }
        return digest(contents)

    def path(self, cache: Cache) -> Path:
        """Where it is kept."""
        return cache.model("task", self.key)

    def record(self, cache: Cache) -> Record | None:
        """How it was trained; None for a tail, which is not."""
        return None if self.tail is not None else records.of(self.path(cache))


def make_readout(
    recipe: ReadoutRecipe, targets: Targets, cache: Cache, report: Report, device: torch.device
) -> Readout | TailReadout:
    """A task's neck and head, trained on uncoded features and frozen: from the cache, else trained and put there.

    A tail is taken as it is.

    Args:
        targets: of the training samples.
    """
    if recipe.tail is not None:
        return TailReadout(recipe.tail).eval()
    source, task, width = recipe.source, recipe.task, recipe.budget.width
    features, path = source.train.features, recipe.path(cache)
    own = own_features(recipe, cache, report) if recipe.decoder else None
    torch.manual_seed(recipe.seed)  # after extraction, whose loader draws too
    neck = registry.get("neck", recipe.neck).build(list(features.specs.values()), features.grids, width)
    if recipe.neck.endswith(COMPILED):
        neck.compile(backend=encoding.BACKEND)
    in_bfloat16 = recipe.neck.removesuffix(COMPILED).endswith(BFLOAT16)
    _, grid = features.finest
    if own is None or recipe.decoder is None:
        head = task.head(width, grid, features.image_px)
        model = Readout(source.stats, neck, head, in_bfloat16=in_bfloat16)
        what = "head"
    else:
        adapter = Adapter(width, grid, stats_of(own), own.grids)
        model = Readout(source.stats, neck, recipe.decoder.head(), adapter, in_bfloat16)
        what = f"adapter to {recipe.decoder.name}"
    model.to(device)

    def train() -> bytes:
        record = fit_readout(
            model,
            task,
            features,
            targets,
            own,
            recipe.neck_loss,
            recipe.budget,
            seed=recipe.seed,
            resume=path.with_suffix(".resume"),
            advance=advance,
        )
        records.keep(path, record)
        return loop.state_bytes(model)

    with report.part(f"{source.encoder.name}: {recipe.neck} and {what}, {task.name}") as advance:
        loop.load_into(model, kept(path, train), path)
    return model.eval().requires_grad_(False)


def own_samples(recipe: ReadoutRecipe) -> Readable:
    """The training samples that a task model's own encoder sees; for statistics alone, a subset is enough."""
    n = len(recipe.source.train.features)
    n = min(n, PREPARE_SAMPLES) if recipe.neck_loss == "task" else n
    return Readable(recipe.source.train.dataset, range(n))


def own_features(recipe: ReadoutRecipe, cache: Cache, report: Report) -> FeatureSet:
    """Training features of the task model's own encoder, as its decoder takes them."""
    assert recipe.decoder is not None
    samples, decoder = own_samples(recipe), recipe.decoder
    dtype, what = recipe.source.train.features.dtype, f"{len(samples)} samples"
    return reported_extract(samples, decoder.encoder, decoder.inputs, cache, report, what, dtype=dtype)


def fit_readout(
    model: Readout,
    task: Task,
    features: FeatureSet,
    targets: Targets,
    own: FeatureSet | None,
    neck_loss: NeckLoss,
    budget: Budget,
    *,
    seed: int,
    resume: Path,
    advance: Advance | None = None,
) -> Record:
    """Train on uncoded training features: neck, and head or adapter.

    Args:
        own: the task model's own features of the same samples, the target of distillation.
        neck_loss: ``task``; ``distill``, the mean squared difference of the adapter's maps from `own`, in units of
            its standard deviation; ``both``, their sum.
    """
    device = next(model.parameters()).device
    near, batches = features.near(device), Batches(task, targets, device)
    near_own = None if own is None or neck_loss == "task" else own.near(device)
    own_stats = None if own is None else {n: replace(s, std=s.std.to(device)) for n, s in stats_of(own).items()}

    train, validation = loop.held_out(len(features))

    def loss_at(indices: Sequence[int]) -> Tensor:
        x, losses = model(moved(near.batch(indices), device)), []
        if neck_loss != "distill":
            losses.append(model.head.loss(x, batches(indices)))
        if neck_loss != "task":
            assert near_own is not None and own_stats is not None
            losses.append(normalized_mse(x, moved(near_own.batch(indices), device), own_stats))
        return torch.stack(losses).sum()

    def loss_of(rng: np.random.Generator) -> Tensor:
        return loss_at(loop.sample_indices(rng, train, budget.task_batch, features.block))

    def validate() -> tuple[float, float]:
        """Loss of the held-out samples, which is its own unit."""
        each = [
            len(batch) * float(loss_at([validation[i] for i in batch]))
            for batch in batches_of(len(validation), budget.task_batch)
        ]
        return sum(each) / len(validation), abs(sum(each)) / len(validation)

    return loop.optimize(
        model,
        loss_of,
        validate,
        steps=budget.task_steps,
        rate=budget.task_rate,
        tolerance=budget.tolerance,
        seed=seed,
        resume=resume,
        advance=advance,
    )


def task_loss(model: Readout | TailReadout, task: Task, targets: Targets) -> TaskLoss:
    """Task loss of decoded features of training samples, through a finished neck and head."""
    batches = Batches(task, targets, next(model.parameters()).device)

    def loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        found: Tensor = model.head.loss(model(maps), batches(indices))
        return found

    return loss


def imitation_loss(model: TailReadout, features: FeatureSet) -> TaskLoss:
    """What a tail says of decoded features of training samples, against what it says of the uncoded ones; no labels."""
    device = next(model.parameters()).device

    def loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        found: Tensor = model.head.imitation_loss(model(maps), moved(features.batch(indices), device))
        return found

    return loss
