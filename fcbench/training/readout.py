"""Readouts of the bottleneck's output: standardization, neck, and a trained head or another model's decoder.

maps --standardize--> neck --------------------------------> trained head
maps --standardize--> neck --adapter, one map per input--> frozen decoder of a task model
maps ----------------------------------------------------> tail: the rest of the encoder's own network
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
from fcbench.core.cache import Cache, cached, digest
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
    """Features less their training mean, divided by their training deviation."""

    def __init__(self, stats: Mapping[str, FeatureStats]) -> None:
        super().__init__()
        self.names = tuple(stats)
        for i, name in enumerate(self.names):
            self.register_buffer(f"mean{i}", stats[name].mean.view(-1, 1, 1).clone())
            self.register_buffer(f"std{i}", stats[name].std.view(-1, 1, 1).clone())

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps [B, C, h, w] of an encoder, standardized, on this module's device."""
        out = {}
        for i, name in enumerate(self.names):
            mean, std = getattr(self, f"mean{i}"), getattr(self, f"std{i}")
            out[name] = (maps[name].to(mean.device) - mean) / std
        return out


class Adapter(nn.Module):
    """Neck outputs to the input maps of a frozen decoder: one 1x1 convolution each, resized to the map's grid.

    If a map is finer than the neck's grid, the convolution also predicts the finer cells (pixel shuffle). Outputs start
    at the scale of the decoder's own features.

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

    A frozen head is not a submodule: it is neither trained nor saved with the rest, and always in evaluation mode.

    Args:
        in_bfloat16: compute matrix products and convolutions of the neck in bfloat16, by autocast; the head, whose
            likelihoods matter, and the loss stay float32.

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
        else:  # bypasses nn.Module, which would make it a submodule
            self.__dict__["head"] = head.eval().requires_grad_(False)

    def forward(self, maps: Mapping[str, Tensor]) -> Any:
        """Input of the head for maps [B, C, h, w] by split point: [B, D, h, w], or maps by decoder input.

        A repeated sample is computed once: a step of a null model then takes a third of the time.
        """
        n = len(next(iter(maps.values())))
        once = all(is_repeated(m) for m in maps.values())
        x = self.neck_output({k: m[:1] for k, m in maps.items()} if once else maps)
        x = x if self.adapter is None else self.adapter(x)
        return _repeated(x, n) if once else x

    def neck_output(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Output of the neck for maps [B, C, h, w]: [B, D, h, w] float32, before any adapter."""
        x = super().forward(maps)
        device = next(iter(x.values())).device
        with torch.autocast(device.type, torch.bfloat16) if self._in_bfloat16 else nullcontext():
            out: Tensor = self.neck(x)
        return out.float()


class TailReadout(nn.Module):
    """A tail as a readout: it reads decoded maps directly.

    Attributes:
        head: a `fcbench.core.tasks.Tail`.
    """

    neck = adapter = None

    def __init__(self, tail: Any) -> None:
        super().__init__()
        self.head = tail

    def forward(self, maps: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the maps [B, C, h, w] unchanged."""
        return maps


def _repeated(x: Any, n: int) -> Any:
    """Tensors [1, ...], one or several by name, expanded to [n, ...]."""
    if isinstance(x, Tensor):
        return x.expand(n, *x.shape[1:])
    return {name: _repeated(one, n) for name, one in x.items()}


@dataclass(frozen=True, slots=True)
class ReadoutRecipe:
    """Everything that determines a readout.

    Attributes:
        decoder: the task model whose decoder is the frozen head; None for a trained head.
        neck_loss: what trains the neck before a frozen decoder.
        tail: the `fcbench.core.tasks.Tail` instead of neck and head; None if there is none.
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
        if self.tail is not None:  # depends only on the encoder's weights, which the features' key covers
            return digest({**self.source.train.features.contents, "task": self.task.name, "tail": True})
        contents = {
            "version": VERSION,
            **self.source.train.features.contents,
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
        """File of the readout."""
        return cache.model("task", self.key)

    def record(self, cache: Cache) -> Record | None:
        """Record of its training; None for a tail, which is not trained."""
        return None if self.tail is not None else records.of(self.path(cache))


def make_readout(
    recipe: ReadoutRecipe, targets: Targets, cache: Cache, report: Report, device: torch.device
) -> Readout | TailReadout:
    """A task's neck and head, trained on uncoded features and frozen: from the cache, or trained and stored.

    A tail is used without training.

    Args:
        targets: of the training samples.
    """
    if recipe.tail is not None:
        return TailReadout(recipe.tail).eval()
    source, task, width = recipe.source, recipe.task, recipe.budget.width
    features, path = source.train.features, recipe.path(cache)
    decoder_features = features_of_decoder(recipe, cache, report) if recipe.decoder else None
    torch.manual_seed(recipe.seed)  # after extraction, whose loader draws random numbers too
    neck = registry.get("neck", recipe.neck).build(list(features.specs.values()), features.grids, width)
    if recipe.neck.endswith(COMPILED):
        neck.compile(backend=encoding.BACKEND)
    in_bfloat16 = recipe.neck.removesuffix(COMPILED).endswith(BFLOAT16)
    _, grid = features.finest
    if decoder_features is None or recipe.decoder is None:
        head = task.head(width, grid, features.image_px)
        model = Readout(source.stats, neck, head, in_bfloat16=in_bfloat16)
        what = "head"
    else:
        adapter = Adapter(width, grid, stats_of(decoder_features), decoder_features.grids)
        model = Readout(source.stats, neck, recipe.decoder.head(), adapter, in_bfloat16)
        what = f"adapter to {recipe.decoder.name}"
    model.to(device)

    def train() -> bytes:
        record = fit_readout(
            model,
            task,
            features,
            targets,
            decoder_features,
            recipe.neck_loss,
            recipe.budget,
            seed=recipe.seed,
            resume=path.with_suffix(".resume"),
            advance=advance,
        )
        records.keep(path, record)
        return loop.state_bytes(model)

    with report.part(f"{source.encoder.name}: {recipe.neck} and {what}, {task.name}") as advance:
        loop.load_into(model, cached(path, train), path)
    return model.eval().requires_grad_(False)


def own_samples(recipe: ReadoutRecipe) -> Readable:
    """Training samples for a task model's own encoder; statistics need only a subset."""
    n = len(recipe.source.train.features)
    n = min(n, PREPARE_SAMPLES) if recipe.neck_loss == "task" else n
    return Readable(recipe.source.train.dataset, range(n))


def features_of_decoder(recipe: ReadoutRecipe, cache: Cache, report: Report) -> FeatureSet:
    """Training features of the task model's own encoder, the inputs of its decoder."""
    assert recipe.decoder is not None
    samples, decoder = own_samples(recipe), recipe.decoder
    dtype, what = recipe.source.train.features.dtype, f"{len(samples)} samples"
    return reported_extract(samples, decoder.encoder, decoder.inputs, cache, report, what, dtype=dtype)


def fit_readout(
    model: Readout,
    task: Task,
    features: FeatureSet,
    targets: Targets,
    decoder_features: FeatureSet | None,
    neck_loss: NeckLoss,
    budget: Budget,
    *,
    seed: int,
    resume: Path,
    advance: Advance | None = None,
) -> Record:
    """Train neck, and head or adapter, on uncoded training features.

    Args:
        decoder_features: the task model's own features of the same samples, the target of distillation.
        neck_loss: ``task``; ``distill``, the mean squared difference of the adapter's maps from `decoder_features`, in
            units of their standard deviation; ``both``, their sum.
    """
    device = next(model.parameters()).device
    near, batches = features.near(device), Batches(task, targets, device)
    near_decoder = None if decoder_features is None or neck_loss == "task" else decoder_features.near(device)
    decoder_stats = (
        None
        if decoder_features is None
        else {n: replace(s, std=s.std.to(device)) for n, s in stats_of(decoder_features).items()}
    )

    train, validation = loop.held_out(len(features))

    def loss_at(indices: Sequence[int]) -> Tensor:
        x, losses = model(moved(near.batch(indices), device)), []
        if neck_loss != "distill":
            losses.append(model.head.loss(x, batches(indices)))
        if neck_loss != "task":
            assert near_decoder is not None and decoder_stats is not None
            losses.append(normalized_mse(x, moved(near_decoder.batch(indices), device), decoder_stats))
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
        value: Tensor = model.head.loss(model(maps), batches(indices))
        return value

    return loss


def imitation_loss(model: TailReadout, features: FeatureSet) -> TaskLoss:
    """Loss of a tail's output for decoded features of training samples, against that for uncoded ones; no labels."""
    device = next(model.parameters()).device

    def loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        value: Tensor = model.head.imitation_loss(model(maps), moved(features.batch(indices), device))
        return value

    return loss
