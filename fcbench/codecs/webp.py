"""WebP on feature mosaics (libwebp by imagecodecs, lossy, 8 bits): the codec ``webp``.

WebP has no monochrome: the mosaic is the three equal channels of a grey RGB picture, whose chroma is constant; libwebp
maps its 256 levels to 220. The knob is libwebp's quality; method 6. The container's 20 bytes are left out, too.
"""

from dataclasses import replace

import numpy as np

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.foreign import Size
from fcbench.coders.stills import WEBP


def _encode(picture: np.ndarray, quality: float, bits: int | None) -> bytes:
    data = WEBP.encode(np.repeat(picture[..., None], 3, axis=2), quality, bits)
    n_bytes = int.from_bytes(data[16:20], "little")
    return data[20 : 20 + n_bytes]


def _decode(frame: bytes, size: Size | None, bits: int | None) -> np.ndarray:
    """The picture of a frame; the RIFF and VP8 headers are rebuilt from the frame's length."""
    chunk = b"VP8 " + len(frame).to_bytes(4, "little") + frame + bytes(len(frame) % 2)
    data = b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
    return WEBP.decode(data, size, bits)[..., 1]


_GREY = replace(WEBP, encode=_encode, decode=_decode)
PLUGIN = MosaicPlugin("webp", "quality", 0, 100, (1.0, 20.0, 50.0, 75.0, 90.0, 98.0), _GREY, bits=(8,))
