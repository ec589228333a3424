"""What label coders share: the plug-in. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LabelCoder:
    """A `fcbench.core.codecs.LabelPlugin` made of functions."""

    output: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    same: Callable[[Any, Any], bool]
    versions: Callable[[], dict[str, str]] = dict
