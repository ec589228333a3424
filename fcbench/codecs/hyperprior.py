"""Mean-scale hyperprior: the codec ``hyperprior``.

All of y is coded in one pass, with means and scales from z alone: see `fcbench.codecs.shared.hyper`.

References: Minnen, Balle, Toderici, Joint autoregressive and hierarchical priors, NeurIPS 2018.
"""

from fcbench.codecs.shared.hyper import HyperMap
from fcbench.codecs.shared.learned import LearnedPlugin

PLUGIN = LearnedPlugin("hyperprior", HyperMap)
