"""Scale hyperprior: the codec ``scale_hyperprior``.

Zero-mean Gaussians whose scales come from a hyper-latent: see `fcbench.codecs.shared.hyper`.

References: Balle, Minnen, Singh, Hwang, Johnston, Variational image compression with a scale hyperprior, ICLR 2018.
"""

from __future__ import annotations

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin


def _make(channels: int, lmbda: float) -> HyperMap:
    return HyperMap(channels, lmbda, zero_mean=True)


PLUGIN = LearnedPlugin("scale_hyperprior", _make)
