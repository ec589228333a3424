"""JPEG (libjpeg-turbo by imagecodecs), 4:2:0, Huffman tables optimized for each image."""

from fcbench.coders.headers import of_jpeg
from fcbench.coders.stills import JPEG
from fcbench.images.shared.coder import ImageCodec

PLUGIN = ImageCodec("jpeg", "quality", 1, 100, (4, 8, 15, 30, 55, 80, 93), JPEG, of_jpeg)
