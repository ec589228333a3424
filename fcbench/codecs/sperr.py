"""SPERR on normalized feature mosaics (imagecodecs, float32): the codec ``sperr``.

Point-wise error bound: the knob bounds the error of every scalar, in training standard deviations. A wavelet coder; its
decoder may crash on a damaged string, which the seal (see `fcbench.coders.foreign`) prevents.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import SPERR

PLUGIN = MosaicPlugin("sperr", "tolerance_std", 1e-4, 64, (3.0, 2.0, 1.0, 0.5, 0.25, 0.12), SPERR)
