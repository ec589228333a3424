"""A depth map at a precision of 1 mm, losslessly from there: 16-bit JPEG XL or PNG, whichever is smaller.

The first byte is k: depths are whole multiples of 2**k mm, for the smallest k at which the largest depth fits 16 bits
(0 up to 65.5 m). Zero stays zero: invalid.
"""

from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError
from fcbench.labels.shared.coder import LabelCoder, decode_picture, encode_picture, picture_versions

PRECISION_M = 0.001
_MAX_LEVEL = 0xFFFF
_MAX_DOUBLINGS = 32


def encode(target: Any) -> bytes:
    """Code metres, float [H, W], numpy or torch, 0 where invalid; a valid depth never becomes 0."""
    depth_m = np.asarray(target, dtype=np.float64)
    if not np.isfinite(depth_m).all() or (depth_m < 0).any():
        raise FcbenchError("a depth map holds NaN, inf or negative depths")
    deepest = float(depth_m.max(initial=0.0))
    doublings = 0
    while np.rint(deepest / (PRECISION_M * 2**doublings)) > _MAX_LEVEL:
        doublings += 1
    if doublings > _MAX_DOUBLINGS:
        raise FcbenchError(f"a depth of {deepest:g} m cannot be coded")
    levels = np.rint(depth_m / (PRECISION_M * 2**doublings))
    levels = np.where(depth_m > 0, np.maximum(levels, 1), 0)
    return bytes([doublings]) + encode_picture(levels.astype(np.uint16))


def decode(data: bytes) -> np.ndarray:
    """float32 [H, W] metres."""
    if not data or data[0] > _MAX_DOUBLINGS:
        raise FcbenchError("a depth map is damaged: its precision is out of range")
    levels = decode_picture(data[1:])
    return (levels * (PRECISION_M * 2.0 ** data[0])).astype(np.float32)


def _output(prediction: Any) -> np.ndarray:
    return np.asarray(prediction, np.float32)[0]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    step = PRECISION_M * max(1.0, float(b.max(initial=0.0)) / 32)  # coarser at greater depth
    return bool(np.abs(a - b).max(initial=0.0) <= step)


PLUGIN = LabelCoder(_output, encode, decode, _same, picture_versions)
