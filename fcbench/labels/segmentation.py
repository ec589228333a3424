"""A mask, losslessly: JPEG XL or PNG, the smaller."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared import picture
from fcbench.labels.shared.coder import LabelCoder


def encode(target: Any) -> bytes:
    """Code class indexes, uint8 [H, W], numpy or torch; `VOID` as any other class."""
    mask = np.asarray(target)
    if mask.dtype != np.uint8:
        raise FcbenchError(f"a mask is uint8 [H, W], not {mask.dtype}")
    return picture.encode(mask)


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W]. Raises `FcbenchError` on damage that can be seen."""
    return picture.decode(data).astype(np.uint8)


def versions() -> dict[str, str]:
    """Of both coders."""
    return picture.versions()


def _output(prediction: Any) -> np.ndarray:
    return np.asarray(prediction)[0].astype(np.uint8)


PLUGIN = LabelCoder(_output, encode, decode, np.array_equal, versions)
