"""SZ3 on normalized feature mosaics (imagecodecs, float32): the codec ``sz3``.

Absolute error bound: the knob bounds the error of every scalar, in training standard deviations.
"""

from __future__ import annotations

from fcbench.codecs.shared.mosaic import MosaicPlugin
from fcbench.coders.stills import SZ3

PLUGIN = MosaicPlugin("sz3", "tolerance_std", 1e-4, 64, (1.4, 1.0, 0.7, 0.4, 0.2, 0.08), SZ3)
