"""WebP (libwebp by imagecodecs), lossy, method 6."""

from __future__ import annotations

from fcbench.codecs import _stills
from fcbench.images._common import ImageCodec


def _versions() -> dict[str, str]:
    return _stills.versions("webp")


PLUGIN = ImageCodec(
    "webp", "quality", 0, 100, (1, 10, 25, 45, 70, 85, 95), _stills.webp_encode, _stills.webp_decode, _versions
)
