"""Codecs at operating points: their recipes, training, and checkpoints in the cache."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.cache import Cache, cached, digest, is_whole
from fcbench.core.codecs import Objective, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureStats
from fcbench.core.progress import Advance, Report
from fcbench.features.devices import moved
from fcbench.features.feature_set import FeatureSet, batches_of
from fcbench.features.source import Source
from fcbench.features.statistics import normalized_mse
from fcbench.training import levels, loop, records
from fcbench.training.convergence import PLATEAU, Record, has_settled
from fcbench.training.options import PREPARE_SAMPLES, VERSION, Budget
from fcbench.training.readout import ReadoutRecipe, TaskLoss
from fcbench.transmit import checkpoint

VARIABLE_STEPS = 3
"""Steps of a codec of variable rate, which trains once for all its points, in multiples of the steps for one point."""
CONTINUED_SHARE = 0.25
"""Steps of an operating point that starts from its neighbour's weights, as a share of those of the first point, which
starts from scratch."""
CONTINUED_RATE = 1 / 3
"""Peak learning rate of such a point where its rate is the lower one, as a share of the first point's. With all of it,
elic unlearns at low rates; towards high rates all of it gives the lower loss."""
N_LMBDAS = 3
"""Operating points, evenly spaced, at which a codec of variable rate is validated."""


@dataclass(frozen=True, slots=True)
class CodecRecipe:
    """Everything that determines a codec at an operating point.

    Attributes:
        objective: what a trained codec preserves; ``mse`` for any other.
        fitted_to: the readout whose loss trains it; None for ``mse``.
        lmbdas: lowest and highest of all operating points, for a codec of variable rate; else empty.
        imitates: train on the readout's output for uncoded features instead of targets.
        starts: operating points whose weights training starts from, the nearest first; empty to start from scratch.
    """

    source: Source
    point: OperatingPoint
    budget: Budget
    seed: int
    objective: Objective = "mse"
    fitted_to: ReadoutRecipe | None = None
    lmbdas: tuple[float, ...] = ()
    imitates: bool = False
    starts: tuple[OperatingPoint, ...] = ()

    @property
    def contents(self) -> dict[str, Any]:
        """Everything that determines the codec, as readable data."""
        plugin = registry.get("codec", self.point.codec)
        contents: dict[str, Any] = {
            "version": VERSION,
            **self.source.train.features.contents,
            "codec": self.point.codec,
            "code": registry.code_version("codec", self.point.codec),
            "params": dict(self.point.params),
        }
        if plugin.bases:
            contents["bases"] = [registry.code_version("codec", base) for base in plugin.bases]
        if plugin.trained:
            contents |= {"seed": self.seed, "budget": self.budget.of_codec, "libraries": plugin.versions()}
        if self.fitted_to:
            contents |= {"task": self.fitted_to.key, "objective": self.objective}
            contents |= {"imitates": True} if self.imitates else {}
        if self.lmbdas:
            contents["lmbdas"] = self.lmbdas
        if self.start:
            starts = [dict(point.params) for point in self.starts]
            contents |= {"starts": starts, "rate": continued_rate(self.start.lmbda, self.lmbda)}
        return contents

    @property
    def start(self) -> CodecRecipe | None:
        """The codec from whose weights training starts."""
        return replace(self, point=self.starts[0], starts=self.starts[1:]) if self.starts else None

    @property
    def lmbda(self) -> float:
        """Lmbda of a trained codec's operating point."""
        return float(self.point.params["lmbda"])

    @property
    def own_seed(self) -> int:
        """Seed of its random numbers: those of an untrained codec are the same for all seeds, as its key is."""
        return self.seed if registry.get("codec", self.point.codec).trained else 0

    @property
    def made_for(self) -> checkpoint.Source:
        """The features that it codes."""
        return checkpoint.Source(self.source.encoder.name, self.source.encoder.weights.sha256)

    def path(self, cache: Cache) -> Path:
        """File of its checkpoint."""
        return cache.model("codec", digest(self.contents))

    def trained_path(self, cache: Cache) -> Path:
        """File that its training makes: the checkpoint, or a codec of variable rate between its points."""
        if not self.lmbdas:
            return self.path(cache)
        return cache.model("sweep", digest({**self.contents, "params": {}}))


def make_codec(
    recipe: CodecRecipe, cache: Cache, report: Report, device: torch.device, task_loss: TaskLoss | None = None
) -> Path:
    """Checkpoint of a codec from the cache; if missing, it is trained and stored, after the codec that it starts from.

    Args:
        task_loss: of the readout that the recipe names.
    """
    plugin, path = registry.get("codec", recipe.point.codec), recipe.path(cache)
    if recipe.start and not is_whole(path):
        make_codec(recipe.start, cache, report, device, task_loss)
    name = f"{recipe.source.encoder.name}: {recipe.point.label}"
    name += f" for {recipe.fitted_to.task.name}" if recipe.fitted_to else ""
    with report.part(f"{name}, {'training' if plugin.trained else 'tables'}") as advance:
        cached(path, lambda: _made(recipe, cache, device, task_loss, advance))
    return path


def make_sweep(
    recipe: CodecRecipe, cache: Cache, device: torch.device, task_loss: TaskLoss | None, advance: Advance
) -> bytes:
    """State of a codec of variable rate between its points from the cache; if missing, it is trained and stored."""
    path = recipe.trained_path(cache)

    def trained() -> bytes:
        stats = _stats(recipe, cache, device, task_loss)
        codec = _built(recipe, stats)
        low, high = recipe.lmbdas
        records.keep(path, _train(codec, recipe, stats, (low, high), cache, device, task_loss, advance))
        return loop.state_bytes(codec)

    return cached(path, trained)


def _made(
    recipe: CodecRecipe, cache: Cache, device: torch.device, task_loss: TaskLoss | None, advance: Advance
) -> bytes:
    stats = _stats(recipe, cache, device, task_loss)
    codec = _built(recipe, stats)
    if recipe.lmbdas:
        loop.load_into(codec, make_sweep(recipe, cache, device, task_loss, advance), recipe.trained_path(cache))
        codec.at(recipe.lmbda)
        records.keep(recipe.path(cache), records.of(recipe.trained_path(cache)))
    elif registry.get("codec", recipe.point.codec).trained:
        record = _train(codec, recipe, stats, (recipe.lmbda, recipe.lmbda), cache, device, task_loss, advance)
        records.keep(recipe.path(cache), record)
    else:
        codec.prepare(_first_features(recipe))
    codec.freeze()
    specs = tuple(recipe.source.train.features.specs.values())
    return checkpoint.as_bytes(codec, recipe.point, specs, recipe.made_for)


def _stats(
    recipe: CodecRecipe, cache: Cache, device: torch.device, task_loss: TaskLoss | None
) -> Mapping[str, FeatureStats]:
    """Statistics of the features that a codec divides by: for ``levels`` with weights of the maps, from the cache."""
    stats, features = recipe.source.stats, recipe.source.train.features
    if recipe.objective != "levels":
        return stats
    assert task_loss is not None and recipe.fitted_to is not None
    batch_size = recipe.budget.codec_batch
    contents = {"task": recipe.fitted_to.key, "imitates": recipe.imitates, "batch": batch_size}
    weights = cached(
        cache.model("levels", digest(contents), ".json"),
        lambda: json.dumps(levels.weights_of(features, stats, task_loss, batch_size, device)).encode(),
    )
    return levels.weighted(stats, json.loads(weights))


def _built(recipe: CodecRecipe, stats: Mapping[str, FeatureStats]) -> Any:
    """A codec before it has seen features."""
    torch.manual_seed(recipe.own_seed)
    plugin = registry.get("codec", recipe.point.codec)
    return plugin.build(list(recipe.source.train.features.specs.values()), stats, recipe.point.params)


def _train(
    codec: Any,
    recipe: CodecRecipe,
    stats: Mapping[str, FeatureStats],
    lmbdas: tuple[float, float],
    cache: Cache,
    device: torch.device,
    task_loss: TaskLoss | None,
    advance: Advance,
) -> Record:
    budget = recipe.budget
    if recipe.start:
        trained = checkpoint.load(recipe.start.path(cache)).codec
        codec.continue_from(trained, recipe.start.lmbda, recipe.lmbda, _all_features(recipe))
        # all of its steps: from good weights the loss rises before it falls, which would look like a plateau
        done = records.of(recipe.start.path(cache)).steps
        steps = done if recipe.start.start else math.ceil(CONTINUED_SHARE * done)  # as all that go on from others
        rate = continued_rate(recipe.start.lmbda, recipe.lmbda) * budget.codec_rate
        budget = replace(budget, codec_steps=steps, codec_rate=rate, tolerance=0)
    else:
        codec.prepare(_first_features(recipe))
    record = fit_codec(
        codec,
        lmbdas,
        recipe.source.train.features,
        stats,
        budget,
        objective=recipe.objective,
        task_loss=task_loss,
        device=device,
        seed=recipe.seed,
        resume=recipe.trained_path(cache).with_suffix(".resume"),
        advance=advance,
    )
    if recipe.start and has_settled(loop.level(record.curve, record.steps), recipe.budget.tolerance):
        record = record._replace(stop=PLATEAU)
    return record


def require_same(recipe: CodecRecipe, path: Path, loaded: checkpoint.Loaded) -> None:
    """Check that a checkpoint matches a recipe's codec, operating point, split point and encoder.

    Raises:
        FcbenchError: it does not.
    """
    specs = tuple(recipe.source.train.features.specs.values())
    params = json.loads(json.dumps(dict(recipe.point.params)))
    expected = OperatingPoint(recipe.point.codec, params), specs, recipe.made_for
    actual = loaded.point, loaded.specs, loaded.source
    if actual != expected:
        shown = [f"{p.label} at {'+'.join(s.name for s in ss)} of {f.encoder}" for p, ss, f in (actual, expected)]
        raise FcbenchError(f"cached codec {path} is {shown[0]}, expected {shown[1]}: delete it and run again")


def _first_features(recipe: CodecRecipe) -> list[Tensor]:
    """Training features [N, C, h, w] of each map that a codec is initialized from."""
    features, (train, n) = recipe.source.train.features, _train_and_first(recipe)
    maps = features.batch(loop.sample_indices(np.random.default_rng(recipe.own_seed), train, n))
    return [maps[name] for name in features.specs]


def _all_features(recipe: CodecRecipe) -> list[Tensor]:
    """`_first_features` if training sees no others; else nothing."""
    train, n = _train_and_first(recipe)
    return _first_features(recipe) if n == len(train) else []


def _train_and_first(recipe: CodecRecipe) -> tuple[Sequence[int], int]:
    """Indices of training samples, and the number that a codec is initialized from."""
    features = recipe.source.train.features
    train, _ = loop.held_out(len(features))
    return train, min(PREPARE_SAMPLES, features.n_at_once, len(train))


def continued_rate(start: float, lmbda: float) -> float:
    """Share of the learning rate for a point that starts from the weights of another lmbda.

    >>> continued_rate(2.0, 0.8) < continued_rate(2.0, 6.0)
    True
    """
    return CONTINUED_RATE if lmbda < start else 1.0


def n_steps(budget: Budget, lmbdas: Sequence[float], continued: bool = False) -> int:
    """Maximum number of steps of a training that serves these lmbdas, or starts from a neighbour's weights."""
    share = CONTINUED_SHARE if continued else VARIABLE_STEPS if len(set(lmbdas)) > 1 else 1
    return math.ceil(budget.codec_steps * share)


def fit_codec(
    codec: Any,
    lmbdas: tuple[float, float],
    features: FeatureSet,
    stats: Mapping[str, FeatureStats],
    budget: Budget,
    *,
    objective: Objective,
    task_loss: TaskLoss | None,
    device: torch.device,
    seed: int,
    resume: Path,
    advance: Advance | None = None,
) -> Record:
    """Train a codec: bits per feature scalar + lmbda x distortion.

    The distortion is the squared error of features divided by their training standard deviation (``mse``), which
    weights of maps are part of (``levels``), the loss of a frozen neck and head (in nats) on the decoded features
    (``task``), or the sum of error and loss (``both``).

    Args:
        lmbdas: lowest and highest. Where they differ the codec is of variable rate: every step draws one, uniform in
            its logarithm, and training takes `VARIABLE_STEPS` times the steps of one point.
    """
    codec.to(device)
    near, deviations = features.near(device), {n: replace(s, std=s.std.to(device)) for n, s in stats.items()}
    train, validation = loop.held_out(len(features))
    low, high = np.log(lmbdas)

    def parts_of(indices: Sequence[int], lmbda: float) -> tuple[Tensor, Tensor]:
        """Bits per scalar, and the weighted distortion."""
        maps = moved(near.batch(indices), device)
        decoded, bits = codec(maps)
        lost = torch.zeros((), device=device)
        if objective != "task":
            lost = lost + normalized_mse(maps, decoded, deviations)
        if objective in ("task", "both"):
            assert task_loss is not None
            lost = lost + task_loss(decoded, indices)
        return bits.sum() / Features(maps).n_scalars, lmbda * lost

    def loss_of(rng: np.random.Generator) -> Tensor:
        indices = loop.sample_indices(rng, train, budget.codec_batch, features.block)
        lmbda = lmbdas[0]
        if low < high:
            lmbda = float(np.exp(rng.uniform(low, high)))
            codec.at(lmbda)
        return torch.stack(parts_of(indices, lmbda)).sum()

    def validate() -> tuple[float, float]:
        """Loss and bits per scalar of the held-out samples, rounded as in coding; summed over the range of lmbda."""
        sums = np.zeros(2)
        for lmbda in np.exp(np.linspace(low, high, N_LMBDAS if low < high else 1)):
            if low < high:
                codec.at(float(lmbda))
            for batch in batches_of(len(validation), budget.codec_batch):
                bits, lost = parts_of([validation[i] for i in batch], float(lmbda))
                sums += len(batch) * np.array([float(bits), float(lost)])
        sums /= len(validation)
        return float(sums.sum()), float(sums[0])

    record = loop.optimize(
        codec,
        loss_of,
        validate,
        steps=n_steps(budget, lmbdas),
        rate=budget.codec_rate,
        tolerance=budget.tolerance,
        seed=seed,
        resume=resume,
        advance=advance,
    )
    codec.to("cpu")
    return record
