"""AVIF (libavif by imagecodecs), 4:2:0, speed 4. The file's boxes, about 300 bytes, count."""

from __future__ import annotations

import numpy as np

from fcbench.coders import stills
from fcbench.images.shared.coder import ImageCodec


def _encode(rgb: np.ndarray, quality: float) -> bytes:
    return stills.encode("avif", rgb, round(quality), speed=4, pixelformat="420", numthreads=1)


def _decode(data: bytes) -> np.ndarray:
    return stills.decode("avif", data, numthreads=1)


def _versions() -> dict[str, str]:
    return stills.versions("avif")


PLUGIN = ImageCodec("avif", "quality", 0, 100, (5, 15, 30, 45, 60, 75, 88), _encode, _decode, _versions)
