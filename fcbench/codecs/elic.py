"""Hyperprior with uneven channel groups and space-channel context: the codec ``elic``.

Five groups of KLT channels, the strongest first and alone; each from z, all groups before, and in its second
pass its neighbours on the checkerboard: see `fcbench.codecs.shared.hyper`.

References: He, Yang, Peng, Ma, Qin, Wang, ELIC: efficient learned image compression with unevenly grouped
space-channel contextual adaptive coding, CVPR 2022.
"""

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin

_SHARES = (20, 20, 10, 5)  # of y's channels, as in ELIC: 16, 16, 32, 64 and the other 192 of 320


def groups_of(channels: int) -> tuple[int, ...]:
    """Sizes of the channel groups, in coding order.

    >>> groups_of(320)
    (16, 16, 32, 64, 192)
    """
    first = tuple(max(1, channels // share) for share in _SHARES)
    rest = channels - sum(first)
    return (*first, rest) if rest else first


def _make(channels: int, lmbda: float) -> HyperMap:
    return HyperMap(channels, lmbda, groups=groups_of(4 * channels), n_passes=2)


PLUGIN = LearnedPlugin("elic", _make)
