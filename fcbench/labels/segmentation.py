"""A mask, losslessly: JPEG XL or PNG, the smaller."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcbench.labels import _picture
from fcbench.labels._common import LabelCoder
from fcbench.types import FcbenchError


def encode(target: Any) -> bytes:
    """Code class indexes, uint8 [H, W], numpy or torch; `VOID` as any other class."""
    mask = np.asarray(target)
    if mask.dtype != np.uint8:
        raise FcbenchError(f"a mask is uint8 [H, W], not {mask.dtype}")
    return _picture.encode(mask)


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W]. Raises `FcbenchError` on damage that can be seen."""
    return _picture.decode(data).astype(np.uint8)


def versions() -> dict[str, str]:
    """Of both coders."""
    return _picture.versions()


def _output(prediction: Any) -> np.ndarray:
    return np.asarray(prediction)[0].astype(np.uint8)


PLUGIN = LabelCoder(_output, encode, decode, np.array_equal, versions)
