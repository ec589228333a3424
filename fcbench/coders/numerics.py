"""The numeric setting in which strings are written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


@contextmanager
def coding_numerics() -> Iterator[None]:
    """One thread, no gradient, no autocast: the setting in which every string is written and read."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


def fixed_numerics(function: Callable[..., _T]) -> Callable[..., _T]:
    """Run a method within `coding_numerics`."""

    @wraps(function)
    def inside(*args: Any) -> _T:
        with coding_numerics():
            return function(*args)

    return inside
