"""Comparison of state dicts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignore: Sequence[str] = ()) -> str:
    """How a state dict differs from the expected one, in a few names; empty if it does not. `ignore`: prefixes of names
    that do not matter (a classifier's)."""

    def counted(names: set[str]) -> list[str]:
        return sorted(n for n in names if not n.startswith(tuple(ignore)))

    both = counted(set(state) & set(expected))
    reshaped = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(expected[n].shape)}"
        for n in both
        if state[n].shape != expected[n].shape
    ]
    return some_of_each(
        {
            "missing": counted(set(expected) - set(state)),
            "unexpected": counted(set(state) - set(expected)),
            "of another shape": reshaped,
        }
    )


def some_of_each(names: Mapping[str, Sequence[str]]) -> str:
    """How many names there are of each kind, and the first few of them.

    >>> some_of_each({"missing": ["a", "b", "c", "d"], "unexpected": []})
    '4 missing: a, b, c, ...'
    """
    return "; ".join(
        f"{len(n)} {what}: {', '.join(n[:3])}{', ...' if len(n) > 3 else ''}" for what, n in names.items() if n
    )
