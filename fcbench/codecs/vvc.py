"""VVC intra on feature mosaics (`vvencapp` and `vvdecapp` on the PATH, constant QP): the codec ``vvc``.

10 bits, preset `slow`, no perceptual QP adaptation. vvenc takes no monochrome: pictures are 4:2:0 with constant chroma.
Building it raises `FcbenchError` where a program is missing.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders.vvc import BITS, vvc_binaries, vvc_decode, vvc_encode, vvc_versions


def _coder(qp: float, bits: int | None) -> PictureCoder:
    vvc_binaries()

    def encode(picture: np.ndarray) -> bytes:
        return vvc_encode(picture, int(qp))

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return vvc_decode(data, size)

    return PictureCoder(encode, decode, bits, least_px=64, multiple_px=8)


PLUGIN = MosaicPlugin("vvc", "qp", 0, 63, True, (40, 36, 32, 28, 24, 18), (BITS,), _coder, vvc_versions)
