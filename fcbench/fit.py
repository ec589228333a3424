"""The training loop: readouts (neck and head) and codecs. Checkpointed, resumable, the same for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.features import FeatureStore
from fcbench.suite import Budget, Objective
from fcbench.types import Dataset, FcbenchError, Features, FeatureStats

CHECKPOINT_S = 60.0
"""Seconds between checkpoints of a training under way."""
TARGETS_LIMIT_BYTES = 1 << 30
"""A task's targets are kept in memory after their first use where all fit into this."""
VARIABLE_STEPS = 3
"""A codec of variable rate trains once for all its points, for so many times the steps of one."""
Progress = Callable[[int, int], None]


# ------------------------------------------------------------------------------------------- the loop
def optimize(
    module: nn.Module,
    loss_of: Callable[[np.random.Generator], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
    resume: Path,
    progress: Progress | None = None,
) -> float:
    """Train a module in place with AdamW, linear warm-up and cosine decay.

    Args:
        module: what is trained: its parameters that require a gradient.
        loss_of: scalar loss of a step, all its randomness drawn from the generator given (numpy) and torch's own.
        steps: optimizer steps.
        rate: peak learning rate.
        seed: step i draws from (seed, i), so a resumed training sees what an uninterrupted one would have seen.
        resume: file of the training under way; removed at the end.

    Returns:
        Mean loss of the last tenth of the steps.

    Raises:
        FcbenchError: the loss is not finite.
    """
    params = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=rate, weight_decay=0.01)
    first, losses = _resume(resume, module, optimizer)
    saved = time.monotonic()
    module.train()
    for step in range(first, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, rate)
        loss = loss_of(np.random.default_rng((seed, step)))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FcbenchError(f"training diverged at step {step} of {steps} (loss {value}): lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        losses.append(value)
        if time.monotonic() - saved > CHECKPOINT_S and step + 1 < steps:
            _save(resume, module, optimizer, step + 1, losses)
            saved = time.monotonic()
        if progress:
            progress(step + 1, steps)
    resume.unlink(missing_ok=True)
    module.eval()
    return float(np.mean(losses[-max(1, steps // 10) :])) if losses else float("nan")


def schedule(step: int, steps: int, peak: float) -> float:
    """Learning rate: up over the first twentieth, then a cosine to a hundredth of the peak.

    >>> schedule(0, 100, 1.0), round(schedule(99, 100, 1.0), 2)
    (0.2, 0.01)
    """
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm)))))


def _save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, losses: list[float]) -> None:
    part = path.with_name(path.name + ".part")
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "losses": losses}
    try:
        torch.save(state, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        raise FcbenchError(
            f"cannot keep a checkpoint in {path.parent} ({error}): choose another --cache-dir"
        ) from error


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]), list(state["losses"])
    except Exception as error:
        raise FcbenchError(f"checkpoint {path} is damaged ({error}): delete it and run again") from error


# ------------------------------------------------------------------------------------------- the data
class Targets:
    """Targets of one task; kept in memory where all of them are small."""

    def __init__(self, dataset: Dataset, task: str) -> None:
        self._dataset, self._task = dataset, task
        self._kept: dict[int, Any] = {}
        self._keep = _size_bytes(dataset.targets(0)[task]) * len(dataset) < TARGETS_LIMIT_BYTES

    def __call__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """The targets of some samples."""
        return [{self._task: self._one(i)} for i in indices]

    def _one(self, index: int) -> Any:
        if index in self._kept:
            return self._kept[index]
        target = self._dataset.targets(index)[self._task]
        if self._keep:
            self._kept[index] = target
        return target


def _size_bytes(target: Any) -> int:
    """Of a map; what is no map counts as a kilobyte."""
    return int(target.nbytes) if isinstance(target, (np.ndarray, Tensor)) else 1024


def draw(rng: np.random.Generator, n: int, batch: int) -> list[int]:
    """Places of a training batch, without repetition where the set allows it."""
    return sorted(rng.choice(n, batch, replace=batch > n).tolist())


# ----------------------------------------------------------------------------------------------- codec
def fit_codec(
    codec: Any,
    lmbdas: tuple[float, float],
    store: FeatureStore,
    stats: Mapping[str, FeatureStats],
    budget: Budget,
    *,
    objective: Objective,
    task_loss: Callable[[Mapping[str, Tensor], Sequence[int]], Tensor] | None,
    device: torch.device,
    seed: int,
    resume: Path,
    progress: Progress | None = None,
) -> float:
    """Train a codec: bits a feature point + lmbda x distortion + the bottleneck's own loss.

    The distortion is the squared error of features divided by their training standard deviation (``mse``), the loss
    of a frozen neck and head (in nats) on the decoded features (``task``), or their sum (``both``).

    Args:
        lmbdas: lowest and highest. Where they differ the codec is of variable rate: every step draws one, uniform in
            its logarithm, and training takes `VARIABLE_STEPS` times the steps of one point.
    """
    codec.to(device)
    low, high = np.log(lmbdas)

    def loss_of(rng: np.random.Generator) -> Tensor:
        places = draw(rng, len(store), budget.codec_batch)
        lmbda = lmbdas[0]
        if low < high:
            lmbda = float(np.exp(rng.uniform(low, high)))
            codec.at(lmbda)
        maps = {k: v.to(device) for k, v in store.batch(places).items()}
        decoded, bits = codec(maps)
        loss: Tensor = bits.sum() / Features(maps).n_points + codec.aux_loss()
        if objective != "task":
            loss = loss + lmbda * normalized_mse(maps, decoded, stats)
        if objective != "mse":
            assert task_loss is not None
            loss = loss + lmbda * task_loss(decoded, places)
        return loss

    final = optimize(
        codec,
        loss_of,
        steps=budget.codec_steps * (VARIABLE_STEPS if low < high else 1),
        rate=budget.codec_rate,
        seed=seed,
        resume=resume,
        progress=progress,
    )
    codec.to("cpu")
    return final


def normalized_mse(a: Mapping[str, Tensor], b: Mapping[str, Tensor], stats: Mapping[str, FeatureStats]) -> Tensor:
    """Mean squared error of features divided by their training standard deviation, over all scalars of all maps."""
    total = torch.zeros((), device=next(iter(a.values())).device)
    for name, x in a.items():
        std = stats[name].std.to(x.device).view(-1, 1, 1)
        total = total + ((x - b[name].to(x.device)) / std).square().sum()
    return total / Features(dict(a)).n_points
