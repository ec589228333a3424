"""HEVC intra on feature mosaics (libx265 by PyAV, constant QP): the codec ``hevc``.

Monochrome (4:0:0), 8 or 10 bits, preset `slow`, no adaptive quantization, no psychovisual tuning: x265 minimizes
squared error. The string is the Annex B stream (VPS, SPS, PPS, one slice), what the first training stream shares with
it left out.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders.video import hevc_decode, hevc_encode, hevc_versions

_FORMATS = {8: "gray", 10: "gray10le"}


def _coder(qp: float, bits: int | None) -> PictureCoder:
    assert bits is not None
    pix_fmt = _FORMATS[bits]

    def encode(picture: np.ndarray) -> bytes:
        return hevc_encode([picture], pix_fmt, int(qp))

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return hevc_decode(data, pix_fmt)[0]

    return PictureCoder(encode, decode, bits, least_px=16, multiple_px=8)


PLUGIN = MosaicPlugin("hevc", "qp", 0, 51, True, (40, 36, 32, 28, 24, 18), (10, 8), _coder, hevc_versions)
