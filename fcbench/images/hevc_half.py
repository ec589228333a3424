"""HEVC intra of the image at half its height and width, as coded by ``hevc``."""

from fcbench.images.shared.halved import HalvedImage

PLUGIN = HalvedImage("hevc")
