"""Transfer of tensors to a device without making GPU and CPU wait for each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that a training may use for data that it reads repeatedly."""


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 for other devices, where a copy would gain nothing."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether this many bytes may stay on a device during a training."""
    return n_bytes < RESIDENT_SHARE * free_bytes(device)


def seed(value: int, device: torch.device) -> None:
    """Seed the random generators of the CPU and of a device.

    `torch.manual_seed` records a traceback for every kind of device that is not in use: half a millisecond.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)


def moved(value: Any, device: torch.device) -> Any:
    """A tensor on a device; a mapping or data class with its tensors there; anything else unchanged.

    Copies to a GPU go through pinned memory and are not waited for.
    """
    if isinstance(value, Tensor):
        if device.type == "cuda" and value.device.type == "cpu":
            return value.pin_memory().to(device, non_blocking=True)
        return value.to(device)
    if isinstance(value, Mapping):
        return {k: moved(v, device) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        values = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **{k: moved(v, device) for k, v in values.items() if isinstance(v, Tensor)})
    return value
