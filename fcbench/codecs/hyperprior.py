"""Mean-scale hyperprior: the codec ``hyperprior``.

    x --normalize--> g_a --> y ------------------> round(y - mean) --> [Gaussian tables] --> bytes --> g_s --> x_hat
                             |                         ^ mean, scale         ^
                             h_a --> z --round--> [EntropyBottleneck] --> h_s

y stands at full resolution, z at half (odd sizes rounded up). It starts as a two-level pyramid in closed form: z
carries block means of the strongest KLT channels where that saves bits, and a few channels of local activity; h_s
is the linear regression of y on z.

What must agree between encoder and decoder is made to: h_s runs in float64 on one thread and sample, means are
snapped to 1/64 and scales to 64 levels of a logarithmic table.

References: Minnen, Balle, Toderici, Joint autoregressive and hierarchical priors, NeurIPS 2018.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import GaussianConditional
from torch import Tensor, nn

from fcbench.codecs._entropy import EntropyTables, Groups
from fcbench.codecs._learned import LearnedPlugin, MapCoder, Plan
from fcbench.codecs._transforms import (
    TAIL_MASS,
    Analysis,
    IntegerBottleneck,
    Residual,
    Synthesis,
    high_rate_log_gain,
    init_klt,
    round_through,
    total_bits,
)

N_SCALES = 64
MIN_SCALE = 0.05
MAX_SCALE = 128.0
MEAN_GRID = 64.0
"""Means are multiples of 1 / 64."""

_LOG_MIN = math.log(MIN_SCALE)
_LOG_STEP = (math.log(MAX_SCALE) - _LOG_MIN) / (N_SCALES - 1)
SCALE_TABLE = [math.exp(_LOG_MIN + _LOG_STEP * i) for i in range(N_SCALES)]

_N_ACTIVITY = 2  # channels of z that start as local activity
_ACTIVITY_STD = 0.6  # about one bit each: training may raise or drop them
_ROUNDING = 1 / 12  # variance of a uniform rounding error


def hyper_channels(channels: int) -> int:
    """Channels N of z for C channels of y.

    >>> hyper_channels(112), hyper_channels(8)
    (28, 16)
    """
    return max(16, channels // 4)


class HyperAnalysis(nn.Module):
    """h_a: y [B, C, h, w] to z [B, N, ceil(h/2), ceil(w/2)], from 2x2 means of y and of its magnitude."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2 * channels, hidden, 1)
        self.residual = Residual(hidden)

    @staticmethod
    def pooled(y: Tensor) -> Tensor:
        """[B, C, h, w] to [B, 2 C, ceil(h/2), ceil(w/2)]; odd edges are repeated."""
        y = F.pad(y, (0, y.shape[-1] % 2, 0, y.shape[-2] % 2), mode="replicate")
        return torch.cat([F.avg_pool2d(y, 2), F.avg_pool2d(y.abs(), 2)], dim=1)

    def forward(self, y: Tensor) -> Tensor:
        """[B, C, h, w] to [B, N, ceil(h/2), ceil(w/2)]."""
        return self.residual(self.linear(self.pooled(y)))


class HyperSynthesis(nn.Module):
    """h_s: decoded z to means and log-scales of y, cropped to its size."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.residual = Residual(hidden)
        self.linear = nn.Conv2d(hidden, 2 * channels, 1)

    def up(self, z: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, N, ceil(h/2), ceil(w/2)] to [B, N, h, w]; starts as bilinear."""
        double = z.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        return self.smooth(double[..., : grid[0], : grid[1]])

    def forward(self, z: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """[B, N, ...] to means [B, C, h, w] and log-scales [B, C, h, w]."""
        means, log_scales = self.linear(self.residual(self.up(z, grid))).chunk(2, dim=1)
        return means, log_scales


def scale_indexes(log_scales: Tensor) -> Tensor:
    """Nearest rows of the scale table, uint8 [B, C, h, w]; neighbours share one, the row of their mean.

    Neighbours are the pairs of a sample's scalars in their order, where their number is even. Sharing costs less
    than 0.1 percent of the bits and halves the sorting by table, the most expensive part around the entropy coder.
    """
    rows = (log_scales - _LOG_MIN) / _LOG_STEP
    if paired(rows):
        halves = rows.reshape(-1, 2).mean(dim=1, keepdim=True)
        rows = halves.expand(-1, 2).reshape(rows.shape)
    return torch.round(rows).clamp(0, N_SCALES - 1).to(torch.uint8)


def paired(latents: Tensor) -> bool:
    """Whether latents [B, C, h, w] have an even number of scalars a sample."""
    return latents[0].numel() % 2 == 0


class HyperpriorMap(MapCoder):
    """Codes latents z and y of one map."""

    stages = ("z", "y")

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__()
        hidden = hyper_channels(channels)
        self.channels, self.hidden = channels, hidden
        self.g_a = Analysis(channels)
        self.g_s = Synthesis(channels)
        self.log_gain = nn.Parameter(
            torch.full((channels, 1, 1), high_rate_log_gain(lmbda))
        )
        self.h_a = HyperAnalysis(channels, hidden)
        self.h_s = HyperSynthesis(channels, hidden)
        self.bottleneck = IntegerBottleneck(hidden)
        self.gaussian = GaussianConditional(
            SCALE_TABLE, scale_bound=MIN_SCALE, tail_mass=TAIL_MASS
        )
        self.z_tables = EntropyTables()
        self.y_tables = EntropyTables()
        self._exact: list[HyperSynthesis] = (
            []
        )  # float64 copy of h_s; in a list, so that it is no submodule

    # ------------------------------------------------------------------------------------ beginning
    def prepare(self, x: Tensor) -> None:
        """KLT, then the pyramid: what z carries, and the regression of y on it."""
        init_klt(self.g_a, self.g_s, x)
        y = self.g_a(x, self.log_gain)
        self._init_h_a(y)
        self._init_h_s(y)
        self.bottleneck.match(self.h_a(y))

    def _init_h_a(self, y: Tensor) -> None:
        """z: block means of the first KLT channels that gain from it, then bands of activity."""
        pooled = HyperAnalysis.pooled(y)
        weight, bias = self.h_a.linear.weight, self.h_a.linear.bias
        assert bias is not None
        weight.zero_()
        bias.zero_()
        n_means = min(self.hidden - _N_ACTIVITY, self.channels)
        gains = _pyramid_gain(y[:, :n_means], pooled[:, :n_means])
        for k in range(n_means):
            weight[k, k] = float(gains[k] > 0)
        for k, band in enumerate(torch.arange(self.channels).chunk(_N_ACTIVITY)):
            weight[self.hidden - _N_ACTIVITY + k, self.channels + band] = 1 / len(band)
        z = self.h_a.linear(pooled)[:, -_N_ACTIVITY:]
        mean, std = z.mean(dim=(0, 2, 3)), z.std(dim=(0, 2, 3), unbiased=False).clamp(
            min=1e-3
        )
        weight[-_N_ACTIVITY:] *= (_ACTIVITY_STD / std)[:, None, None, None]
        bias[-_N_ACTIVITY:] = -mean * _ACTIVITY_STD / std

    def _init_h_s(self, y: Tensor) -> None:
        """Means by ridge regression of y on upsampled round(z), scales from what remains."""
        kernel = torch.tensor([0.25, 0.5, 0.25])
        self.h_s.smooth.weight.copy_(
            (kernel[:, None] * kernel).expand_as(self.h_s.smooth.weight)
        )
        smooth_bias, bias = self.h_s.smooth.bias, self.h_s.linear.bias
        assert smooth_bias is not None and bias is not None
        smooth_bias.zero_()
        u = self.h_s.up(torch.round(self.h_a(y)), (y.shape[-2], y.shape[-1]))
        a = u.transpose(0, 1).reshape(self.hidden, -1).double()
        b = y.transpose(0, 1).reshape(self.channels, -1).double()
        a_mean, b_mean = a.mean(dim=1, keepdim=True), b.mean(dim=1, keepdim=True)
        gram = (a - a_mean) @ (a - a_mean).T / a.shape[1] + 1e-3 * torch.eye(
            self.hidden, dtype=a.dtype, device=a.device
        )
        weight = torch.linalg.solve(gram, (a - a_mean) @ (b - b_mean).T / a.shape[1]).T
        rest = (b - b_mean - weight @ (a - a_mean)).square().mean(dim=1).sqrt()
        self.h_s.linear.weight.zero_()
        self.h_s.linear.weight[: self.channels, :, 0, 0] = weight.float()
        bias[: self.channels] = (b_mean - weight @ a_mean)[:, 0].float()
        bias[self.channels :] = rest.clamp(2 * MIN_SCALE, MAX_SCALE).log().float()

    # ------------------------------------------------------------------------------------- training
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, h, w] to the same, and bits [B]."""
        y = self.g_a(x, self.log_gain)
        z = self.h_a(y)
        _, z_likelihood = self.bottleneck(z)
        grid = (y.shape[-2], y.shape[-1])
        if self.training:
            means, log_scales = self.h_s(round_through(z), grid)
            scales = log_scales.clamp(_LOG_MIN, math.log(MAX_SCALE)).exp()
        else:
            means, indexes = self._means_and_indexes(torch.round(z), grid)
            scales = self.gaussian.scale_table[indexes.long()]
        _, y_likelihood = self.gaussian(y, scales, means)
        y_hat = round_through(y - means) + means
        return self.g_s(y_hat, self.log_gain), total_bits(z_likelihood) + total_bits(
            y_likelihood
        )

    def aux_loss(self) -> Tensor:
        """0-dim."""
        return self.bottleneck.loss()

    # --------------------------------------------------------------------------------------- coding
    def freeze(self) -> None:
        """One table a channel of z; one a scale for y."""
        self._exact.clear()
        self.z_tables.fill(*self.bottleneck.make_tables(), escape=True)
        gaussian = copy.deepcopy(self.gaussian)
        gaussian.update()
        self.y_tables.fill(
            gaussian.quantized_cdf, gaussian.cdf_length, gaussian.offset, escape=True
        )

    def _load_from_state_dict(self, *args: Any) -> None:
        self._exact.clear()
        super()._load_from_state_dict(*args)

    def _means_and_indexes(
        self, z: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Snapped means [B, C, h, w] float32 and scale indexes uint8, computed in float64 on the CPU."""
        frozen = self.y_tables.filled and not self.training
        if not frozen or not self._exact:
            self._exact[:] = [copy.deepcopy(self.h_s).cpu().double()]
        with torch.no_grad():
            means, log_scales = self._exact[0](z.detach().cpu().double(), grid)
        snapped = (torch.round(means * MEAN_GRID) / MEAN_GRID).float()
        return snapped.to(z.device), scale_indexes(log_scales).to(z.device)

    def tables(self, stage: int) -> EntropyTables:
        """z's, then y's."""
        return self.z_tables if stage == 0 else self.y_tables

    def plan(
        self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]
    ) -> Plan:
        """z channel by channel; y by scale."""
        if stage == 0:
            half = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
            return Plan(
                Groups.equal(self.hidden, half[0] * half[1]), (1, self.hidden, *half)
            )
        means, indexes = self._means_and_indexes(earlier[0], grid)
        pairs = paired(indexes)
        of_runs = indexes.flatten()[:: 2 if pairs else 1].contiguous()
        groups = Groups.by_index(of_runs.numpy(), N_SCALES, pairs=pairs)
        return Plan(groups, (1, self.channels, *grid), means)

    def analyze(self, x: Tensor) -> list[Tensor]:
        """[z, y]."""
        y = self.g_a(x, self.log_gain)
        return [self.h_a(y), y]

    def synthesize(self, latents: Sequence[Tensor]) -> Tensor:
        """Normalized features."""
        return self.g_s(latents[1], self.log_gain)


def _pyramid_gain(y: Tensor, blocks: Tensor) -> Tensor:
    """Bits [K] that coding 2x2 means of y [B, K, h, w] first saves a block, by Gaussian entropies."""
    up = blocks.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)[
        ..., : y.shape[-2], : y.shape[-1]
    ]
    total = y.var(dim=(0, 2, 3), unbiased=False) + _ROUNDING
    rest = (y - up).var(dim=(0, 2, 3), unbiased=False) + 2 * _ROUNDING
    block = blocks.var(dim=(0, 2, 3), unbiased=False) + _ROUNDING
    return 2 * torch.log2(total / rest) - 0.5 * torch.log2(2 * math.pi * math.e * block)


PLUGIN = LearnedPlugin(
    "hyperprior",
    "learned transform, Gaussian latents with means and scales from a hyper-latent",
    HyperpriorMap,
)
