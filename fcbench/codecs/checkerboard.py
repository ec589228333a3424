"""Hyperprior with checkerboard context: the codec ``checkerboard``.

y in two passes: half of the positions from z alone, the other half from z and their four neighbours, of any size of
map: see `fcbench.codecs.shared.hyper`.

References: He, Zheng, Sun, Wang, Qin, Checkerboard context model for efficient learned image compression, CVPR 2021.
"""

from __future__ import annotations

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin


def _make(channels: int, lmbda: float) -> HyperMap:
    return HyperMap(channels, lmbda, n_passes=2)


PLUGIN = LearnedPlugin("checkerboard", _make)
