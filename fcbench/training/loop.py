"""The training loop for readouts (neck and head) and codecs: checkpointed and resumable."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fcbench.core import cache
from fcbench.core.errors import FcbenchError
from fcbench.core.progress import Advance
from fcbench.features import devices
from fcbench.training.convergence import CAP, PLATEAU, Look, Record, gain, is_due, is_flat

CHECKPOINT_S = 60.0
"""Seconds between checkpoints of a running training."""
BLOCKS_PER_BATCH = 4
"""Blocks of samples from which a batch is drawn, if the samples do not stay in memory."""
READ_EVERY = 16
"""Steps between two looks at the loss; each look makes the CPU wait for all steps of a GPU."""
WARM_STEPS = 30
"""Steps over which the learning rate rises."""
TAIL = 0.2
"""Share of the last steps, over which the learning rate falls."""
AVERAGED = 10
"""After t steps the average of the weights covers about the last t / `AVERAGED` steps."""
HELD_OUT = 8
"""One of this many training samples is held out for validation, but at least this many."""
MAX_HELD_OUT = 64
"""Maximum number of held-out samples."""
_SPLIT_SEED = 12

Validate = Callable[[], tuple[float, float]]
"""Validation loss of a module in evaluation mode, and the unit of gains."""


# ------------------------------------------------------------------------------------------- the loop
class _State:
    """State of a training, enough to resume it.

    Attributes:
        end: last step: the maximum, until the loss is flat.
        average: of the weights.
        best: averaged weights of the lowest validation loss.
    """

    def __init__(self, module: nn.Module, rate: float, cap: int) -> None:
        self.module = module
        self.params = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.params, lr=rate, weight_decay=0.01)
        self.step, self.seconds, self.end, self.stop = 0, 0.0, cap, CAP
        self.average = self._copies()
        self.best = self._copies()
        self.curve: list[Look] = []

    def _copies(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.params]

    def learn(self, loss: Tensor) -> None:
        """Make a step, and update the average."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.step += 1
        weights = [p.detach() for p in self.params]
        torch._foreach_lerp_(self.average, weights, min(1.0, AVERAGED / self.step))

    def look(self, validate: Validate, seconds: float, tolerance: float) -> None:
        """Measure the validation loss of the averaged weights; if it is flat, start the final phase."""
        self._swap()
        self.module.eval()
        with torch.no_grad():
            loss, unit = validate()
        self.module.train()
        self._swap()
        if not np.isfinite(loss):
            raise FcbenchError(
                f"training diverged: validation loss {loss} at step {self.step}: lower the learning rate"
            )
        if not self.curve or loss < min(look.loss for look in self.curve):
            self.best = [a.clone() for a in self.average]
        self.curve.append(Look(self.step, seconds, loss, unit))
        if self.step < turn(self.end) and is_flat(self.curve, tolerance):
            self.end, self.stop = min(self.end, end_after(self.step)), PLATEAU

    def _swap(self) -> None:
        """Exchange weights and average."""
        for p, average in zip(self.params, self.average):
            p.data, average.data = average.data, p.data

    def finish(self) -> Record:
        """Load the best weights, and return the record."""
        with torch.no_grad():
            for p, best in zip(self.params, self.best):
                p.copy_(best)
        self.module.eval()
        return Record(self.step, self.seconds, self.stop, gain(level(self.curve, self.end)), tuple(self.curve))

    def save(self, path: Path) -> None:
        """Write the whole state."""
        buffer = io.BytesIO()
        plain = {name: getattr(self, name) for name in self._PLAIN}
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), **plain}
        torch.save({**state, "curve": [tuple(look) for look in self.curve]}, buffer)
        cache.put(path, buffer.getvalue())

    _PLAIN = ("step", "seconds", "end", "stop", "average", "best")

    def resume(self, path: Path) -> None:
        """Resume from a file, if it exists."""
        data = cache.get(path)
        if data is None:
            return
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name in self._PLAIN:
                setattr(self, name, state[name])
            for name in ("average", "best"):
                setattr(self, name, [t.to(p.device) for t, p in zip(state[name], self.params, strict=True)])
            self.curve = [Look(*look) for look in state["curve"]]
        except Exception as error:
            raise FcbenchError(
                f"checkpoint {path} is not of this training ({error}): delete it and run again"
            ) from error


def optimize(
    module: nn.Module,
    loss_of: Callable[[np.random.Generator], Tensor],
    validate: Validate,
    *,
    steps: int,
    rate: float,
    tolerance: float,
    seed: int,
    resume: Path,
    advance: Advance | None = None,
) -> Record:
    """Train a module in place with AdamW until its validation loss is flat.

    The learning rate rises, stays, and falls over the last fifth of the steps. The validation loss is that of an
    average of the weights, and the average with the lowest one is kept.

    Args:
        module: module whose parameters with gradients are trained.
        loss_of: scalar loss of a step; it draws random numbers only from the given generator (numpy) and torch's.
        steps: maximum number of optimizer steps.
        rate: peak learning rate.
        tolerance: the fall of the learning rate begins when the last doubling of the steps lowered the validation
            loss by less than this share of its unit; 0 for all steps.
        seed: step i draws from (seed, i), so a resumed training sees the same as an uninterrupted one.
        resume: file of the unfinished training; removed at the end.

    Raises:
        FcbenchError: the loss of a step was not finite; detected at most `READ_EVERY` steps later.
    """
    state = _State(module, rate, steps)
    state.resume(resume)
    pending: list[Tensor] = []  # losses not read yet
    began = saved = time.monotonic()
    before_s = state.seconds
    module.train()
    while state.step < state.end:
        devices.seed(seed * 1_000_003 + state.step, state.params[0].device)
        for group in state.optimizer.param_groups:
            group["lr"] = schedule(state.step, state.end, rate)
        try:
            loss = loss_of(np.random.default_rng((seed, state.step)))
        except Exception:
            _check(pending, state.step, steps)  # a diverged training may fail in any way
            raise
        pending.append(loss.detach())
        state.learn(loss)
        is_last = state.step == state.end
        is_look = is_last or is_due(state.step)
        is_save = time.monotonic() - saved > CHECKPOINT_S and not is_last
        if is_look or is_save or len(pending) == READ_EVERY:
            _check(pending, state.step, steps)
            pending.clear()
        state.seconds = before_s + time.monotonic() - began
        if is_look:
            state.look(validate, state.seconds, tolerance)
        if is_save:
            state.save(resume)
            saved = time.monotonic()
        if advance:
            advance(state.step, state.end)
    cache.remove(resume)
    return state.finish()


def _check(pending: list[Tensor], done: int, steps: int) -> None:
    """Read the losses of the steps up to `done` on the CPU, all at once.

    Raises:
        FcbenchError: one is not finite.
    """
    values: list[float] = torch.stack(pending).tolist() if pending else []
    for step, value in enumerate(values, done - len(values)):
        if not np.isfinite(value):
            raise FcbenchError(f"training diverged at step {step} of {steps} (loss {value}): lower the learning rate")


def turn(end: int) -> int:
    """Step at which the learning rate of a training of `end` steps begins to fall.

    >>> turn(150), turn(end_after(128))
    (120, 128)
    """
    return end - int(TAIL * end)


def level(curve: Sequence[Look], end: int) -> Sequence[Look]:
    """Looks before the learning rate of a training of `end` steps fell; all of a short one."""
    return [look for look in curve if look.step <= turn(end)] or curve


def end_after(step: int) -> int:
    """Number of steps of a training whose learning rate begins to fall at a step."""
    return step + math.ceil(step * TAIL / (1 - TAIL) - 1e-9)


def schedule(step: int, end: int, peak: float) -> float:
    """Learning rate: rising, constant, and over the last fifth of `end` steps falling to a hundredth of the peak.

    >>> [round(schedule(step, 100, 1.0), 2) for step in (0, 29, 79, 80, 90, 99)]
    [0.03, 1.0, 1.0, 1.0, 0.51, 0.06]
    """
    left = min(1.0, (end - step) / max(1, end - turn(end)))
    return peak * min((step + 1) / WARM_STEPS, 0.01 + 0.99 * left)


# ------------------------------------------------------------------------------------------- samples
def held_out(n: int) -> tuple[list[int], list[int]]:
    """Indices of n training samples: those to train on, and those held out for validation.

    An eighth is held out, but at least 8 samples, at most 64 and at most half; a single sample is both.

    >>> held_out(1), [len(part) for part in held_out(20)], [len(part) for part in held_out(10**5)]
    (([0], [0]), [12, 8], [99936, 64])
    """
    if n == 1:
        return [0], [0]
    out = min(max(n // HELD_OUT, HELD_OUT), MAX_HELD_OUT, n // 2)
    order = np.random.default_rng(_SPLIT_SEED).permutation(n)
    return sorted(order[out:].tolist()), sorted(order[:out].tolist())


def sample_indices(rng: np.random.Generator, indices: Sequence[int], batch: int, block: int | None = None) -> list[int]:
    """Indices of a training batch, without repetition if there are enough samples.

    Args:
        indices: of all training samples, in order.
        block: number of samples that are read together: the batch is drawn from at most `BLOCKS_PER_BATCH` random
            blocks, or from as many as it needs. None, or more than there are: drawn from all samples.
    """
    every = np.asarray(indices)
    if block is not None and block <= every[-1]:
        blocks = every // block
        several = max(BLOCKS_PER_BATCH, -(-batch // block) + 1)
        every = every[np.isin(blocks, rng.permutation(np.unique(blocks))[:several])]
    return sorted(rng.choice(every, batch, replace=batch > len(every)).tolist())


# ------------------------------------------------------------------------------------------ kept models
def state_bytes(module: nn.Module) -> bytes:
    """A module's state as a safetensors file."""
    return save({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()})


def load_into(module: nn.Module, data: bytes, path: Path) -> None:
    """Load a state that `state_bytes` made.

    Args:
        path: its file, for messages.

    Raises:
        FcbenchError: the state does not fit the module.
    """
    try:
        module.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise FcbenchError(f"cached model {path} is not this model ({error}): delete it and run again") from error
