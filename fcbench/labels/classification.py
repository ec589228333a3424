"""A class index: log2 K bits, rounded up to bytes."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared.coder import LabelCoder


def encode(target: int, n_classes: int = 256) -> bytes:
    """Code an index below the number of classes: one byte up to 256 classes, two up to 65536."""
    index = int(target)
    if not 0 <= index < n_classes:
        raise FcbenchError(f"class index must be below {n_classes}, got {index}")
    return index.to_bytes(max(1, -(-(n_classes - 1).bit_length() // 8)), "little")


def decode(data: bytes) -> int:
    """Inverse of `encode`."""
    if not data:
        raise FcbenchError("an empty label: the file is cut")
    return int.from_bytes(data, "little")


def _output(prediction: Any) -> int:
    return int(np.argmax(prediction[0]))


def _encode(target: int) -> bytes:
    """One byte for the first 256 classes, two for the others of up to 65536."""
    return encode(target, 256 if target < 256 else 1 << 16)


PLUGIN = LabelCoder(_output, _encode, decode, operator.eq)
