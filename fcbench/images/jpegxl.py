"""JPEG XL (libjxl by imagecodecs), lossy, bare codestream, effort 7."""

from __future__ import annotations

import numpy as np

from fcbench.coders import stills
from fcbench.images.shared.coder import ImageCodec


def _encode(rgb: np.ndarray, distance: float) -> bytes:
    return stills.jpegxl_encode(rgb, distance, 8)


def _versions() -> dict[str, str]:
    return stills.versions("jpegxl")


PLUGIN = ImageCodec("jpegxl", "distance", 0.01, 25, (20, 12, 7, 4, 2, 1, 0.5), _encode, stills.jpegxl_decode, _versions)
