"""Our own codec ``strata``: a spectrum of features coded ring by ring, from the mean to the finest detail."""

from fcbench.codecs.strata.codec import PLUGIN

__all__ = ["PLUGIN"]
