"""WebP (libwebp by imagecodecs), lossy, method 6."""

from __future__ import annotations

from fcbench.coders import stills
from fcbench.images.shared.coder import ImageCodec


def _versions() -> dict[str, str]:
    return stills.versions("webp")


PLUGIN = ImageCodec(
    "webp", "quality", 0, 100, (1, 10, 25, 45, 70, 85, 95), stills.webp_encode, stills.webp_decode, _versions
)
