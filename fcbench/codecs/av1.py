"""AV1 still pictures of feature mosaics (SVT-AV1 by PyAV, constant quantizer): the codec ``av1``.

8 or 10 bits, preset 4, tuned for PSNR. SVT-AV1 takes no monochrome: pictures are 4:2:0 with constant chroma, which
costs a few bits per superblock. The string is the OBU stream without its start, shared with the first training stream.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.video import AV1

PLUGIN = MosaicPlugin("av1", "qp", 1, 63, (54, 48, 42, 34, 26, 16), AV1, bits=(10, 8), whole=True)
