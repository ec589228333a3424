"""VVC intra on feature mosaics (encoded by `vvencapp`, decoded by PyAV, constant QP): the codec ``vvc``.

10 bits, preset `slow`, no perceptual QP adaptation. vvenc takes no monochrome: pictures are 4:2:0 with constant chroma.
Encoding raises `FcbenchError` if `vvencapp` is not on the PATH; decoding needs no program.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.vvc import BITS, VVC

PLUGIN = MosaicPlugin("vvc", "qp", 0, 63, (40, 36, 32, 28, 24, 18), VVC, bits=(BITS,), whole=True)
