"""Detections of one image: labels, scores to a thousandth, boxes and keypoints to a quarter pixel, masks unchanged.

The numbers are stored column by column, two bytes each, and then compressed by the best of several general compressors.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from fcbench.coders.varint import Cursor, varint
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import Detections
from fcbench.labels.shared.coder import LabelCoder, expand, squeeze

SCORE_STEP = 1e-3
PRECISION_PX = 0.25
_MAX_DETECTIONS, _MAX_KEYPOINTS = 1 << 16, 1 << 12
_TYPE = np.dtype("<i2")


@dataclass(frozen=True, slots=True)
class Said:
    """The coded content."""

    numbers: np.ndarray  # [D, 6 + 2 K] int16: label, score, box, keypoints, in steps
    size_px: tuple[int, int] = (0, 0)  # (H, W) of the masks; (0, 0) without any
    regions: tuple[bytes, ...] = ()  # run-length codes of the D masks, or none


def output(prediction: Any) -> Said:
    """The coded content of a head's prediction for one image."""
    detections: Detections = prediction[0]
    n = len(detections.labels)
    points = (
        np.zeros((n, 0))
        if detections.keypoints is None
        else np.asarray(detections.keypoints).reshape(n, 2 * np.shape(detections.keypoints)[1])
    )
    columns = [
        np.asarray(detections.labels)[:, None],
        np.asarray(detections.scores, np.float64)[:, None] / SCORE_STEP,
        np.asarray(detections.boxes, np.float64).reshape(n, 4) / PRECISION_PX,
        points / PRECISION_PX,
    ]
    numbers = np.rint(np.concatenate(columns, axis=1))
    if not (np.abs(numbers) < np.iinfo(_TYPE).max).all():
        raise FcbenchError("detections hold NaN, or lie more than 8191 pixels from the image's corner")
    size = tuple(detections.regions[0]["size"]) if len(detections.regions) else (0, 0)
    codes = tuple(c if isinstance(c := r["counts"], bytes) else c.encode() for r in detections.regions)
    return Said(numbers.astype(_TYPE), (int(size[0]), int(size[1])), codes)


def encode(said: Said) -> bytes:
    """Bytes of `Said`."""
    n, width = said.numbers.shape
    head = varint(n) + varint((width - 6) // 2) + varint(len(said.regions))
    head += varint(said.size_px[0]) + varint(said.size_px[1])
    codes = b"".join(varint(len(code)) + code for code in said.regions)
    return squeeze(head + said.numbers.T.tobytes() + codes)


def decode(data: bytes) -> Said:
    """Inverse of `encode`. Raises `FcbenchError`: detectable damage."""
    packed = expand(data)
    cursor = Cursor(BytesIO(packed), len(packed), "detections")
    n, n_keypoints, n_regions = cursor.varint(), cursor.varint(), cursor.varint()
    size = cursor.varint(), cursor.varint()
    if n > _MAX_DETECTIONS or n_keypoints > _MAX_KEYPOINTS or n_regions not in (0, n):
        raise FcbenchError(f"detections are damaged: {n} of {n_keypoints} keypoints, {n_regions} masks")
    width = 6 + 2 * n_keypoints
    numbers = np.frombuffer(cursor.take(n * width * _TYPE.itemsize), _TYPE).reshape(width, n).T
    return Said(numbers, size, tuple(cursor.take(cursor.varint()) for _ in range(n_regions)))


def same(a: Said, b: Said) -> bool:
    """Whether both contents are equal."""
    return np.array_equal(a.numbers, b.numbers) and (a.size_px, a.regions) == (b.size_px, b.regions)


CODER = LabelCoder(output, encode, decode, same)
