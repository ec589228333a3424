"""The training loop: readouts (neck and head) and codecs. Checkpointed, resumable, the same for all of them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fcbench.core import cache
from fcbench.core.errors import FcbenchError
from fcbench.core.progress import Advance

CHECKPOINT_S = 60.0
"""Seconds between checkpoints of a training under way."""
BLOCKS_PER_BATCH = 4
"""Blocks of samples that a batch comes from, where they do not stay in memory."""
READ_EVERY = 16
"""Steps between two looks at the loss, for each of which the CPU waits until a GPU has done all its steps."""


# ------------------------------------------------------------------------------------------- the loop
def optimize(
    module: nn.Module,
    loss_of: Callable[[np.random.Generator], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
    resume: Path,
    advance: Advance | None = None,
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
        FcbenchError: the loss was not finite at a step, found at most `READ_EVERY` steps later.
    """
    params = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=rate, weight_decay=0.01)
    first, losses = _resume(resume, module, optimizer)
    pending: list[Tensor] = []  # losses that were not looked at
    saved = time.monotonic()
    module.train()
    for step in range(first, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, rate)
        try:
            loss = loss_of(np.random.default_rng((seed, step)))
        except Exception:
            _read(pending, len(losses), steps)  # a training that diverged may fail in any way
            raise
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        pending.append(loss.detach())
        is_due = time.monotonic() - saved > CHECKPOINT_S and step + 1 < steps
        if is_due or len(pending) == READ_EVERY or step + 1 == steps:
            losses += _read(pending, len(losses), steps)
            pending.clear()
        if is_due:
            _save(resume, module, optimizer, step + 1, losses)
            saved = time.monotonic()
        if advance:
            advance(step + 1, steps)
    cache.remove(resume)
    module.eval()
    return float(np.mean(losses[-max(1, steps // 10) :])) if losses else float("nan")


def _read(pending: list[Tensor], first: int, steps: int) -> list[float]:
    """Losses of steps from `first` on, all brought to the CPU at once.

    Raises:
        FcbenchError: one is not finite.
    """
    values: list[float] = torch.stack(pending).tolist() if pending else []
    for step, value in enumerate(values, first):
        if not np.isfinite(value):
            raise FcbenchError(f"training diverged at step {step} of {steps} (loss {value}): lower the learning rate")
    return values


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
    buffer = io.BytesIO()
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "losses": losses}
    torch.save(state, buffer)
    cache.put(path, buffer.getvalue())


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    data = cache.get(path)
    if data is None:
        return 0, []
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]), list(state["losses"])
    except Exception as error:
        raise FcbenchError(f"checkpoint {path} is not of this training ({error}): delete it and run again") from error


def sample_indices(rng: np.random.Generator, n: int, batch: int, block: int | None = None) -> list[int]:
    """Indices of a training batch out of n samples, without repetition where there are enough.

    Args:
        block: samples that are read together: the batch comes from at most `BLOCKS_PER_BATCH` blocks, drawn anew for
            each batch, or from as many more as it needs. None or n: from all samples.
    """
    if block is None or block >= n:
        return sorted(rng.choice(n, batch, replace=batch > n).tolist())
    starts = rng.permutation(range(0, n, block))[: max(BLOCKS_PER_BATCH, -(-batch // block) + 1)]
    near = np.concatenate([np.arange(start, min(start + block, n)) for start in starts])
    return sorted(rng.choice(near, batch, replace=batch > len(near)).tolist())


# ------------------------------------------------------------------------------------------ kept models
def state_bytes(module: nn.Module) -> bytes:
    """A module's state as a safetensors file."""
    return save({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()})


def load_into(module: nn.Module, data: bytes, path: Path) -> None:
    """Load a state as `state_bytes` made it.

    Args:
        path: its file, for messages.

    Raises:
        FcbenchError: the state is not the module's.
    """
    try:
        module.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise FcbenchError(f"cached model {path} is not this model ({error}): delete it and run again") from error
