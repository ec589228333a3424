"""JPEG XL (libjxl by imagecodecs), lossy, bare codestream, effort 7."""

from __future__ import annotations

from fcbench.coders.stills import JPEGXL
from fcbench.images.shared.coder import ImageCodec

PLUGIN = ImageCodec("jpegxl", "distance", 0.01, 25, (20, 12, 7, 4, 2, 1, 0.5), JPEGXL)
