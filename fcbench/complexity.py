"""Multiply-accumulates and parameters of what runs: as executed, counted call by call.

Counted are matrix products, convolutions and attention (PyTorch's `FlopCounterMode`, two operations a
multiply-accumulate); element-wise work and entropy coding are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(
    query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any
) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention
}
"""The one attention kernel that PyTorch's counter does not know."""


def macs(call: Callable[[], object]) -> int:
    """Multiply-accumulates of a call.

    >>> layer = nn.Linear(3, 5)
    >>> macs(lambda: layer(torch.zeros(2, 3)))
    30
    """
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with counter, torch.no_grad():
        call()
    return int(counter.get_total_flops()) // 2


def n_params(module: nn.Module) -> int:
    """Parameters of a module, trained and frozen.

    >>> n_params(nn.Linear(3, 5))
    20
    """
    return sum(p.numel() for p in module.parameters())
