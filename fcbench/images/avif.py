"""AVIF (libavif by imagecodecs), 4:2:0, speed 4. Includes the file's boxes, about 300 bytes."""

from fcbench.coders.headers import of_avif
from fcbench.coders.stills import AVIF
from fcbench.images.shared.coder import ImageCodec

PLUGIN = ImageCodec("avif", "quality", 0, 100, (5, 15, 30, 45, 60, 75, 88), AVIF, of_avif)
