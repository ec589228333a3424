"""HEVC intra on feature mosaics (libx265 by PyAV, constant QP): the codec ``hevc``.

Monochrome (4:0:0), 8 or 10 bits, preset `slow`, no adaptive quantization, no psychovisual tuning: x265 minimizes
squared error. The string is the Annex B stream (VPS, SPS, PPS, one slice), without the start it shares with the
first training stream.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.video import HEVC

PLUGIN = MosaicPlugin("hevc", "qp", 0, 51, (40, 36, 32, 28, 24, 18), HEVC, bits=(10, 8), whole=True)
