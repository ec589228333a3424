"""JPEG 2000 on feature mosaics (OpenJPEG by imagecodecs, 9/7 wavelet): the codec ``jpeg2000``.

8, 10 or 12 bits, bare codestream, one layer; the knob is the PSNR of the mosaic [dB].
"""

from __future__ import annotations

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import JPEG2000

PLUGIN = MosaicPlugin("jpeg2000", "psnr_db", 10, 80, (24.0, 28.0, 32.0, 36.0, 42.0, 48.0), JPEG2000, bits=(10, 8, 12))
