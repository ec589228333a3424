"""ZFP on normalized feature mosaics (imagecodecs, float32): the codec ``zfp``.

Fixed accuracy: the knob bounds the error of every scalar, in training standard deviations. ZFP stays well below its
bound, so its useful bounds are large. Two-dimensional blocks of the mosaic take fewer bits than three-dimensional
ones of the tensor, because neighbouring channels are not smooth.
"""

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import ZFP

PLUGIN = MosaicPlugin("zfp", "tolerance_std", 1e-4, 64, (16.0, 8.0, 4.0, 2.0, 1.0, 0.5), ZFP)
