"""HEVC intra (libx265 by PyAV, constant QP), 8 bits, 4:4:4, full-range BT.601.

Preset `slow`, no adaptive quantization, no psychovisual tuning. Sides are padded with their edges to multiples of 8
(and to at least 16 pixels): the true height and width precede the Annex B stream, two bytes each.
"""

import struct

import numpy as np

from fcbench.coders.foreign import PictureCoder, Size
from fcbench.coders.headers import of_hevc
from fcbench.coders.video import hevc_decode, hevc_encode, hevc_versions
from fcbench.core.errors import FcbenchError
from fcbench.images.shared.coder import ImageCodec, rgb, ycbcr

_FORMAT = "yuv444p"  # full range by agreement of both sides, not by a flag
_SIZE = struct.Struct("<HH")


def _encode(image: np.ndarray, qp: float, bits: int | None) -> bytes:
    height, width = image.shape[:2]
    if max(height, width) > 0xFFFF:
        raise FcbenchError(f"hevc: an image of {height}x{width} exceeds 65535 pixels per side")
    pads = [(0, max(16, -(-n // 8) * 8) - n) for n in (height, width)]
    planes = [np.pad(p, pads, mode="edge") for p in ycbcr(image)]
    return _SIZE.pack(height, width) + hevc_encode(planes, _FORMAT, round(qp))


def _decode(data: bytes, size: Size | None, bits: int | None) -> np.ndarray:
    if len(data) <= _SIZE.size:
        raise FcbenchError(f"hevc: {len(data)} bytes hold no image: the file is truncated")
    height, width = _SIZE.unpack_from(data)
    image = rgb(hevc_decode(data[_SIZE.size :], _FORMAT))
    if not (0 < height <= image.shape[0] and 0 < width <= image.shape[1]):
        raise FcbenchError(f"hevc: a picture of {image.shape[0]}x{image.shape[1]} holds no image of {height}x{width}")
    return image[:height, :width]


def _header_bytes(data: bytes) -> int:
    return of_hevc(data[_SIZE.size :])  # sizes of 256 pixels look like a start code


_CODER = PictureCoder(_encode, _decode, hevc_versions)
PLUGIN = ImageCodec("hevc", "qp", 0, 51, (49, 45, 41, 37, 33, 28, 22), _CODER, _header_bytes)
