"""Variable-rate hyperprior: the codec ``gained_hyperprior``, one training for the whole curve.

    y * gain(lmbda) --as in hyperprior--> y_hat / gain'(lmbda)

Gain units scale each channel of y, of z, and of the input of g_s; their logarithms are parabolas in log lmbda, so
that every training step teaches all of the curve. The layers between the gains use units that do not depend on
lmbda. A checkpoint holds the point at which it was frozen.

References: Cui, Wang, Gao, Guo, Feng, Bai, Asymmetric gained deep image compression with continuous rate adaptation,
CVPR 2021.
"""

import math

import torch
from torch import Tensor, nn

from fcbench.codecs.shared.hyper import EntropyNet, HyperMap
from fcbench.codecs.shared.hyper_layers import GaussianParams
from fcbench.codecs.shared.learned import LearnedPlugin, VariableLearnedCodec
from fcbench.codecs.shared.transforms import IntegerBottleneck

_MIDDLE = 1.5  # lmbda at which units are those of the latents
_SPAN = 2.5  # natural logarithm from the middle to an end of the usual sweeps


class Gain(nn.Module):
    """Log-gain of each channel, a parabola in the operating point t. `channels`: C. `slope`: of all channels at the
    start."""

    point: Tensor

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(channels, 1, 1))
        self.slope = nn.Parameter(torch.full((channels, 1, 1), slope))
        self.bend = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("point", torch.zeros(()))

    def forward(self) -> Tensor:
        """[C, 1, 1]."""
        return self.level + self.point * (self.slope + self.point * self.bend)


class GainedBottleneck(IntegerBottleneck):
    """Densities of z in its own units, quantized in steps of 1 / gain."""

    def __init__(self, channels: int, gain: Gain) -> None:
        super().__init__(channels)
        self._gain = [gain]  # in a list, so that it is not registered here too

    def _logits_cumulative(self, inputs: Tensor, stop_gradient: bool) -> Tensor:
        log_gain = self._gain[0]()
        if stop_gradient:
            log_gain = log_gain.detach()
        logits: Tensor = super()._logits_cumulative(inputs * (-log_gain).exp(), stop_gradient)
        return logits


class GainedNet(EntropyNet):
    """Predicts in units that do not depend on the operating point."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden)
        self.gain_y = Gain(channels, 0.5 * _SPAN)
        self.gain_z = Gain(hidden, 0.5 * _SPAN)

    def begin(self, z: Tensor, grid: tuple[int, int]) -> GaussianParams:
        means, log_scales = super().begin(z * (-self.gain_z()).exp(), grid)
        log_gain = self.gain_y()
        return means * log_gain.exp(), log_scales + log_gain


class GainedMap(HyperMap):
    """A hyperprior between gain units."""

    net: GainedNet

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__(channels, _MIDDLE)
        self.net = GainedNet(self.channels, self.hidden)
        self.bottleneck = GainedBottleneck(self.hidden, self.net.gain_z)
        self.gain_back = Gain(self.channels, 0.0)
        self.at(lmbda)

    def at(self, lmbda: float) -> None:
        point = math.log(lmbda / _MIDDLE) / _SPAN
        for gain in self._gains():
            gain.point.fill_(point)
        self._exact.clear()

    def _gains(self) -> tuple[Gain, ...]:
        return self.net.gain_y, self.net.gain_z, self.gain_back

    def prepare(self, x: Tensor) -> None:
        point = self.net.gain_y.point.clone()
        for gain in self._gains():
            gain.point.zero_()
        super().prepare(x)
        for gain in self._gains():
            gain.point.copy_(point)

    def analyze_whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.g_a(x, self.log_gain)
        return self.h_a(y) * self.net.gain_z().exp(), y * self.net.gain_y().exp()

    def restore(self, y: Tensor, grid: tuple[int, int]) -> Tensor:
        log_gain = self.log_gain + self.net.gain_y() + self.gain_back()
        return self.g_s(y, log_gain, grid)


PLUGIN = LearnedPlugin("gained_hyperprior", GainedMap, frame=VariableLearnedCodec)
