"""A class index, in one byte or two."""

import operator
from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared.coder import LabelCoder

_MAX_CLASSES = 1 << 16


def encode(target: int) -> bytes:
    """One byte for the first 256 classes, two for the others, up to 65536."""
    index = int(target)
    if not 0 <= index < _MAX_CLASSES:
        raise FcbenchError(f"class index must be below {_MAX_CLASSES}, got {index}")
    return index.to_bytes(1 if index < 256 else 2, "little")


def decode(data: bytes) -> int:
    """Inverse of `encode`."""
    if not data:
        raise FcbenchError("an empty label: the file is truncated")
    return int.from_bytes(data, "little")


def _output(prediction: Any) -> int:
    return int(np.argmax(prediction[0]))


PLUGIN = LabelCoder(_output, encode, decode, operator.eq)
