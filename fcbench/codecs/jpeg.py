"""JPEG on feature mosaics (libjpeg-turbo by imagecodecs, 8 bits, grey): the codec ``jpeg``.

Baseline with Huffman tables optimized for each picture; the knob is libjpeg's quality.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import JPEG

PLUGIN = MosaicPlugin("jpeg", "quality", 1, 100, (8, 20, 40, 65, 85, 96), JPEG, bits=(8,), whole=True)
