"""What label coders share: the plug-in. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LabelCoder:
    """A task's own output, coded without loss at a stated precision.

    Attributes:
        output: what is coded of a head's prediction for one image (`fcbench.core.tasks.Head.predict`, B = 1).
        encode: an output to bytes.
        decode: bytes to an output as `encode` takes it.
        same: whether two outputs agree to the stated precision.
        versions: of the coders in use.
    """

    output: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    same: Callable[[Any, Any], bool]
    versions: Callable[[], dict[str, str]]
