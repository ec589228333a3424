"""Networks that run no further than to the last of the maps that are wanted of them."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn


class _Enough(Exception):
    """All wanted maps are there."""


def makers(module: nn.Module, run: Callable[[], Sequence[Tensor]]) -> list[nn.Module]:
    """The parts of a network whose outputs are the maps that a run of it returns, one for each; none at all if a map
    is no part's output, or its part runs more than once."""
    calls: list[tuple[nn.Module, weakref.ref[Any]]] = []

    def note(part: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append((part, weakref.ref(output)))

    maps = _hooked(list(module.modules())[1:], note, run)
    parts = [part for part, _ in calls]
    found = [part for x in maps for part in [part for part, made in calls if made() is x][-1:]]
    return found if len(found) == len(maps) and all(parts.count(part) == 1 for part in found) else []


def outputs(parts: Sequence[nn.Module], run: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """What parts of a network give, in the order in which they run; after the last one it stops.

    `run`: all of the network, for the outputs of these parts and perhaps of others; it runs to its end if no parts are
    given, and while it is compiled.
    """
    if not parts or torch.compiler.is_compiling():
        return run()
    found: list[Tensor] = []

    def keep(_: nn.Module, output: Any) -> None:
        found.append(output)
        if len(found) == len(parts):
            raise _Enough

    with suppress(_Enough):
        _hooked(parts, keep, run)
    return found


def _hooked(parts: Sequence[nn.Module], see: Callable[[nn.Module, Any], None], run: Callable[[], Any]) -> Any:
    """The result of a run during which a function sees the outputs of parts, or the first output of each."""

    def hook(part: nn.Module, _: Any, output: Any) -> None:
        see(part, output[0] if isinstance(output, (tuple, list)) else output)

    handles = [part.register_forward_hook(hook) for part in parts]
    try:
        return run()
    finally:
        for handle in handles:
            handle.remove()
