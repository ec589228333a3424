"""JPEG 2000 on feature mosaics (OpenJPEG by imagecodecs, 9/7 wavelet): the codec ``jpeg2000``.

8, 10 or 12 bits, bare codestream, one layer; the knob is the PSNR of the mosaic [dB].
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(psnr_db: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return stills.encode(
            "jpeg2k", picture, level=psnr_db, codecformat="J2K", bitspersample=bits, reversible=False, numthreads=1
        )

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.decode("jpeg2k", data, numthreads=1)

    return PictureCoder(encode, decode, bits)


def _versions() -> dict[str, str]:
    return stills.versions("jpeg2k")


PLUGIN = MosaicPlugin(
    "jpeg2000", "psnr_db", 10, 80, False, (24.0, 28.0, 32.0, 36.0, 42.0, 48.0), (10, 8, 12), _coder, _versions
)
