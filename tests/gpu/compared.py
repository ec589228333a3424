"""The tolerance of the comparisons."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest magnitude; devices may differ."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def on_both(module: nn.Module, device: torch.device, loss_of: Callable[[Any], Tensor]) -> tuple[float, float]:
    """Differences of a loss, and of its gradient as a whole, between a device and the CPU."""
    losses, gradients = [], []
    for where in (device, torch.device("cpu")):
        one: Any = copy.deepcopy(module).to(where)
        torch.manual_seed(0)
        loss = loss_of(one)
        loss.backward()
        assert loss.device.type == where.type
        losses.append(loss)
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in one.parameters() if p.grad is not None]))
    return difference(*losses), difference(*gradients)
