"""AV1 still pictures of feature mosaics (SVT-AV1 by PyAV, constant quantizer): the codec ``av1``.

8 or 10 bits, preset 4, tuned for PSNR. SVT-AV1 takes no monochrome: pictures are 4:2:0 with constant chroma, which
costs a few bits a superblock. The string is the OBU stream, what the first training stream shares with it left out.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders.video import av1_decode, av1_encode, av1_versions

_FORMATS = {8: "yuv420p", 10: "yuv420p10le"}


def _coder(qp: float, bits: int | None) -> PictureCoder:
    assert bits is not None
    pix_fmt = _FORMATS[bits]

    def encode(picture: np.ndarray) -> bytes:
        height, width = picture.shape
        chroma = np.full((height // 2, width // 2), 1 << (bits - 1), picture.dtype)
        return av1_encode([picture, chroma, chroma], pix_fmt, int(qp))

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return av1_decode(data, pix_fmt)[0]

    return PictureCoder(encode, decode, bits, least_px=16, multiple_px=8)


PLUGIN = MosaicPlugin("av1", "qp", 1, 63, True, (54, 48, 42, 34, 26, 16), (10, 8), _coder, av1_versions)
