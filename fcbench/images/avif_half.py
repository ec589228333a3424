"""AVIF of the image at half its height and width, as coded by ``avif``."""

from fcbench.images.shared.halved import HalvedImage

PLUGIN = HalvedImage("avif")
