"""JPEG XL on feature mosaics (libjxl by imagecodecs, lossy): the codec ``jpegxl``.

8 or 10 bits, bare codestream, effort 7; the knob is the Butteraugli distance. Its model is of eyes, not of squared
error, and takes levels for gamma-coded luminance.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(distance: float, bits: int | None) -> PictureCoder:
    assert bits is not None

    def encode(picture: np.ndarray) -> bytes:
        return stills.jpegxl_encode(picture, distance, bits)

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.jpegxl_decode(data)

    return PictureCoder(encode, decode, bits, least_px=8)


def _versions() -> dict[str, str]:
    return stills.versions("jpegxl")


PLUGIN = MosaicPlugin("jpegxl", "distance", 0.01, 25, False, (8.0, 4.0, 2.5, 1.5, 0.8, 0.4), (10, 8), _coder, _versions)
