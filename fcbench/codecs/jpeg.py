"""JPEG on feature mosaics (libjpeg-turbo by imagecodecs, 8 bits, grey): the codec ``jpeg``.

Baseline with Huffman tables made for each picture; the knob is libjpeg's quality.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(quality: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return stills.encode("jpeg8", picture, int(quality), colorspace="GRAYSCALE", optimize=True)

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.decode("jpeg8", data)

    return PictureCoder(encode, decode, bits)


def _versions() -> dict[str, str]:
    return stills.versions("jpeg8")


PLUGIN = MosaicPlugin("jpeg", "quality", 1, 100, True, (8, 20, 40, 65, 85, 96), (8,), _coder, _versions)
