"""HEVC intra on mosaics of principal components (libx265 by PyAV, constant QP): the codec ``hevc_klt``.

Like `hevc`, but the variation that channels share is coded only once, in the first tiles.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.video import HEVC

PLUGIN = MosaicPlugin("hevc_klt", "qp", 0, 51, (40, 36, 32, 28, 24, 18), HEVC, bits=(10,), whole=True, klt=True)
