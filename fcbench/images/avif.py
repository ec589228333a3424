"""AVIF (libavif by imagecodecs), 4:2:0, speed 4. The file's boxes, about 300 bytes, count."""

from __future__ import annotations

import numpy as np

from fcbench.codecs import _stills
from fcbench.images._common import ImageCodec


def _encode(rgb: np.ndarray, quality: float) -> bytes:
    return _stills.encode("avif", rgb, round(quality), speed=4, pixelformat="420", numthreads=1)


def _decode(data: bytes) -> np.ndarray:
    return _stills.decode("avif", data, numthreads=1)


def _versions() -> dict[str, str]:
    return _stills.versions("avif")


PLUGIN = ImageCodec("avif", "quality", 0, 100, (5, 15, 30, 45, 60, 75, 88), _encode, _decode, _versions)
