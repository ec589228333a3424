"""Hyperprior with checkerboard context: the codec ``checkerboard``.

y in two passes: half of the positions from z alone, the other half from z and their four neighbours, for any size of
map: see `fcbench.codecs.shared.hyper`.

References: He, Zheng, Sun, Wang, Qin, Checkerboard context model for efficient learned image compression, CVPR 2021.
"""

from functools import partial

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin

PLUGIN = LearnedPlugin("checkerboard", partial(HyperMap, n_passes=2))
