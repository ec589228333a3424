"""JPEG (libjpeg-turbo by imagecodecs), 4:2:0, Huffman tables made for each image."""

from __future__ import annotations

import numpy as np

from fcbench.coders import stills
from fcbench.images.shared.coder import ImageCodec


def _encode(rgb: np.ndarray, quality: float) -> bytes:
    return stills.encode("jpeg8", rgb, round(quality), subsampling="420", optimize=True)


def _decode(data: bytes) -> np.ndarray:
    return stills.decode("jpeg8", data)


def _versions() -> dict[str, str]:
    return stills.versions("jpeg8")


PLUGIN = ImageCodec("jpeg", "quality", 1, 100, (4, 8, 15, 30, 55, 80, 93), _encode, _decode, _versions)
