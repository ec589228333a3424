"""A mask, losslessly: JPEG XL or PNG, whichever is smaller."""

from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared.coder import LabelCoder, decode_picture, encode_picture, picture_versions


def encode(target: Any) -> bytes:
    """Code class indices, uint8 [H, W], numpy or torch; `VOID` like any other class."""
    mask = np.asarray(target)
    if mask.dtype != np.uint8:
        raise FcbenchError(f"a mask must be uint8 [H, W], got {mask.dtype}")
    return encode_picture(mask)


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W]."""
    return decode_picture(data).astype(np.uint8)


def _output(prediction: Any) -> np.ndarray:
    return np.asarray(prediction)[0].astype(np.uint8)


PLUGIN = LabelCoder(_output, encode, decode, np.array_equal, picture_versions)
