"""The numeric setting in which strings are written and read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def coding_numerics() -> Iterator[None]:
    """One thread, no gradient, no autocast. Also a decorator, ``@coding_numerics()``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)
