"""JPEG XL on feature mosaics (libjxl by imagecodecs, lossy): the codec ``jpegxl``.

8 or 10 bits, bare codestream, effort 7; the knob is the Butteraugli distance. It models vision, not squared
error, and treats levels as gamma-coded luminance.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import JPEGXL

PLUGIN = MosaicPlugin("jpegxl", "distance", 0.01, 25, (8.0, 4.0, 2.5, 1.5, 0.8, 0.4), JPEGXL, bits=(10, 8))
