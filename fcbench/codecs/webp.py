"""WebP on feature mosaics (libwebp by imagecodecs, lossy, 8 bits): the codec ``webp``.

WebP has no monochrome: the mosaic is the three equal channels of a grey RGB picture, whose chroma is constant; libwebp
maps its 256 levels to 220. The knob is libwebp's quality; method 6. The container's 20 bytes go with the header.
"""

from __future__ import annotations

import numpy as np

from fcbench.codecs.shared.mosaic import Grid, MosaicPlugin, PictureCoder
from fcbench.coders import stills


def _coder(quality: float, bits: int | None) -> PictureCoder:
    def encode(picture: np.ndarray) -> bytes:
        return _bare(stills.webp_encode(np.repeat(picture[..., None], 3, axis=2), quality))

    def decode(data: bytes, size: Grid) -> np.ndarray:
        return stills.webp_decode(_contained(data))[..., 1]

    return PictureCoder(encode, decode, bits)


def _bare(data: bytes) -> bytes:
    """The VP8 frame of a simple lossy WebP file."""
    n_bytes = int.from_bytes(data[16:20], "little")
    return data[20 : 20 + n_bytes]


def _contained(frame: bytes) -> bytes:
    """Inverse of `_bare`: RIFF and VP8 chunk headers follow from the frame's length alone."""
    chunk = b"VP8 " + len(frame).to_bytes(4, "little") + frame + bytes(len(frame) % 2)
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def _versions() -> dict[str, str]:
    return stills.versions("webp")


PLUGIN = MosaicPlugin("webp", "quality", 0, 100, False, (1.0, 20.0, 50.0, 75.0, 90.0, 98.0), (8,), _coder, _versions)
