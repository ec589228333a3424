"""Scale hyperprior: the codec ``scale_hyperprior``.

Zero-mean Gaussians whose scales come from a hyper-latent: see `fcbench.codecs.shared.hyper`.

References: Balle, Minnen, Singh, Hwang, Johnston, Variational image compression with a scale hyperprior, ICLR 2018.
"""

from functools import partial

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin

PLUGIN = LearnedPlugin("scale_hyperprior", partial(HyperMap, zero_mean=True))
