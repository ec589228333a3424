"""SZ3 on normalized feature mosaics (imagecodecs, float32): the codec ``sz3``.

Absolute error bound: the knob bounds the error of every scalar, in training standard deviations.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(tolerance_std: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return stills.encode("sz3", picture, mode="abs", abs=tolerance_std)

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.decode("sz3", data, size, np.dtype(np.float32))

    return PictureCoder(encode, decode, None)


def _versions() -> dict[str, str]:
    return stills.versions("sz3")


PLUGIN = MosaicPlugin("sz3", "tolerance_std", 1e-4, 64, False, (1.4, 1.0, 0.7, 0.4, 0.2, 0.08), (), _coder, _versions)
