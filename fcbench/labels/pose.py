"""Keypoints at a precision of a quarter pixel, packed to bits, then the best of several general compressors.

For each of P persons and K keypoints: two bits of visibility; x and y of keypoints that are not absent, in the fewest
bits that hold the image's largest. Boxes and areas are not coded: they follow from keypoints or are given.
"""

from io import BytesIO
from typing import Any

import numpy as np

from fcbench.coders.varint import Cursor, varint
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Pose
from fcbench.labels.shared.coder import LabelCoder, expand, squeeze

PRECISION_PX = 0.25
_USUAL_KEYPOINTS = 17
_MAX_KEYPOINTS = 1 << 12
_UNUSUAL = 32  # Added to the number of bits if a number of keypoints other than 17 follows
_MAX_POINTS = 1 << 20  # Keypoints of all persons
_MAX_BITS = 24


def encode(target: Pose) -> bytes:
    """Code the keypoints [P, K, 3] of a pose (x_px, y_px, v)."""
    keypoints = np.asarray(target.keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[2] != 3 or not 1 <= keypoints.shape[1] <= _MAX_KEYPOINTS:
        raise FcbenchError(f"keypoints must have shape [P, K, 3], got {list(keypoints.shape)}")
    if keypoints.size > 3 * _MAX_POINTS:
        raise FcbenchError(f"{keypoints.size // 3} keypoints in an image: at most {_MAX_POINTS} can be coded")
    visible = keypoints[..., 2]
    points = keypoints[visible > 0][:, :2]
    if not np.isfinite(points).all() or not np.isin(visible, (0, 1, 2)).all():
        raise FcbenchError("keypoints hold NaN, inf or a visibility other than 0, 1, 2")
    levels = np.rint(points / PRECISION_PX)
    if np.abs(levels).max(initial=0) >= 1 << (_MAX_BITS - 1):
        raise FcbenchError("keypoints lie absurdly far outside the image")
    low = int(levels.min(initial=0))
    offsets = (levels - low).astype(np.int64)
    n_bits = int(offsets.max(initial=0)).bit_length()
    bits = [_bits(visible.astype(np.int64).ravel(), 2), _bits(offsets.ravel(), n_bits)]
    n_keypoints = keypoints.shape[1]
    usual = n_keypoints == _USUAL_KEYPOINTS
    form = varint(n_bits) if usual else varint(n_bits + _UNUSUAL) + varint(n_keypoints)
    head = varint(len(keypoints)) + varint(-low) + form
    return squeeze(head + np.packbits(np.concatenate(bits)).tobytes())


def decode(data: bytes) -> np.ndarray:
    """Keypoints [P, K, 3] float32, x and y 0 where absent."""
    packed = expand(data)
    cursor = Cursor(BytesIO(packed), len(packed), "keypoints")
    n_persons, minus_low, n_bits = cursor.varint(), cursor.varint(), cursor.varint()
    n_keypoints = _USUAL_KEYPOINTS
    if n_bits >= _UNUSUAL:
        n_bits, n_keypoints = n_bits - _UNUSUAL, cursor.varint()
    if n_persons * n_keypoints > _MAX_POINTS or n_bits > _MAX_BITS or not 1 <= n_keypoints <= _MAX_KEYPOINTS:
        raise FcbenchError("keypoints are damaged: persons, keypoints or bits out of range")
    bits = np.unpackbits(np.frombuffer(packed[cursor.at :], np.uint8))
    n = n_persons * n_keypoints
    visible = _numbers(bits[: 2 * n], n, 2)
    present = visible > 0
    n_offsets = 2 * int(present.sum())
    offsets = _numbers(bits[2 * n :], n_offsets, n_bits)
    keypoints = np.zeros((n, 3), np.float32)
    keypoints[:, 2] = visible
    levels = offsets.reshape(-1, 2) - minus_low
    keypoints[present, :2] = levels * PRECISION_PX
    return keypoints.reshape(n_persons, n_keypoints, 3)


def _bits(values: np.ndarray, n_bits: int) -> np.ndarray:
    """Non-negative integers [n] to bits [n * n_bits], highest first."""
    shifts = np.arange(n_bits - 1, -1, -1)
    return ((values[:, None] >> shifts) & 1).astype(np.uint8).ravel()


def _numbers(bits: np.ndarray, n: int, n_bits: int) -> np.ndarray:
    """Inverse of `_bits`: the first n integers. Raises `FcbenchError`: bits are missing."""
    if len(bits) < n * n_bits:
        raise FcbenchError("keypoints are damaged: they end too early")
    weights = 1 << np.arange(n_bits - 1, -1, -1, dtype=np.int64)
    return bits[: n * n_bits].reshape(n, n_bits).astype(np.int64) @ weights


def _output(prediction: Any) -> Pose:
    """All keypoints of the persons whose boxes were given, without scores."""
    points = np.asarray(prediction[0], np.float32)
    visible = np.full((*points.shape[:2], 1), 2, np.float32)
    none = np.zeros((len(points), 4), np.float32)
    return Pose(np.concatenate([points, visible], -1), none, none[:, 0])


def _same(decoded: np.ndarray, coded: Pose) -> bool:
    off = np.abs(decoded - coded.keypoints).max(initial=0.0)
    return bool(off <= PRECISION_PX / 2 + 1e-3)


PLUGIN = LabelCoder(_output, encode, decode, _same)
