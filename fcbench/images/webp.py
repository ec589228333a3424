"""WebP (libwebp by imagecodecs), lossy, method 6."""

from fcbench.coders.headers import of_webp
from fcbench.coders.stills import WEBP
from fcbench.images.shared.coder import ImageCodec

PLUGIN = ImageCodec("webp", "quality", 0, 100, (1, 10, 25, 45, 70, 85, 95), WEBP, of_webp)
