"""SPERR on normalized feature mosaics (imagecodecs, float32): the codec ``sperr``.

Point-wise error bound: the knob bounds the error of every scalar, in training standard deviations. A wavelet coder; its
decoder may crash on a damaged string, so that the seal (see `_foreign`) is not an ornament.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(tolerance_std: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return stills.encode("sperr", picture, tolerance_std, "pwe", numthreads=1)

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.decode("sperr", data, shape=size, dtype=np.dtype(np.float32), numthreads=1)

    return PictureCoder(encode, decode, None, least_px=8)


def _versions() -> dict[str, str]:
    return stills.versions("sperr")


PLUGIN = MosaicPlugin(
    "sperr", "tolerance_std", 1e-4, 64, False, (3.0, 2.0, 1.0, 0.5, 0.25, 0.12), (), _coder, _versions
)
