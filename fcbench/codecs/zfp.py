"""ZFP on normalized feature mosaics (imagecodecs, float32): the codec ``zfp``.

Fixed accuracy: the knob bounds the error of every scalar, in training standard deviations. ZFP stays well below its
bound, so that its useful bounds are large. Two-dimensional blocks of the mosaic take fewer bits than three-dimensional
ones of the tensor, since neighbouring channels have nothing smooth in common.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(tolerance_std: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return stills.encode("zfp", picture, level=tolerance_std, mode="a", numthreads=1)

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.decode("zfp", data, numthreads=1)

    return PictureCoder(encode, decode, None)


def _versions() -> dict[str, str]:
    return stills.versions("zfp")


PLUGIN = MosaicPlugin("zfp", "tolerance_std", 1e-4, 64, False, (16.0, 8.0, 4.0, 2.0, 1.0, 0.5), (), _coder, _versions)
