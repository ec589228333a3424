"""Transforms between y and its hyper-latent z, with their closed-form start."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.codecs.shared.gaussian import LOG_MAX, MIN_SCALE
from fcbench.codecs.shared.transforms import Residual

_N_ACTIVITY = 2  # channels of z that start as local activity
_ACTIVITY_STD = 0.6  # about one bit each: training may raise or drop them
_ROUNDING = 1 / 12  # variance of a uniform rounding error
GaussianParams = tuple[Tensor, Tensor]  # Means and log-scales


def hyper_channels(channels: int) -> int:
    """Channels N of z for C channels of y.

    >>> hyper_channels(448), hyper_channels(8)
    (56, 16)
    """
    return max(16, channels // 8)


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

    def start(self, y: Tensor) -> None:
        """z: block means of the first KLT channels that benefit, then bands of activity."""
        pooled, channels = self.pooled(y), y.shape[1]
        hidden = self.linear.weight.shape[0]
        weight, bias = self.linear.weight, self.linear.bias
        assert bias is not None
        weight.zero_()
        bias.zero_()
        n_means = min(hidden - _N_ACTIVITY, channels)
        gains = _pyramid_gain(y[:, :n_means], pooled[:, :n_means])
        for k in range(n_means):
            weight[k, k] = float(gains[k] > 0)
        for k, band in enumerate(torch.arange(channels).chunk(_N_ACTIVITY)):
            weight[hidden - _N_ACTIVITY + k, channels + band] = 1 / len(band)
        z = self.linear(pooled)[:, -_N_ACTIVITY:]
        mean, std = z.mean(dim=(0, 2, 3)), z.std(dim=(0, 2, 3), unbiased=False)
        slope = _ACTIVITY_STD / std.clamp(min=1e-3)
        weight[-_N_ACTIVITY:] *= slope[:, None, None, None]
        bias[-_N_ACTIVITY:] = -mean * slope


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

    def forward(self, z: Tensor, grid: tuple[int, int]) -> GaussianParams:
        """[B, N, ...] to means [B, C, h, w] and log-scales [B, C, h, w]."""
        means, log_scales = self.linear(self.residual(self.up(z, grid))).chunk(2, dim=1)
        return means, log_scales

    def start(self, y: Tensor, z: Tensor) -> None:
        """Means by ridge regression of y on upsampled z, scales from the residuals."""
        kernel = torch.tensor([0.25, 0.5, 0.25], device=y.device)
        self.smooth.weight.copy_((kernel[:, None] * kernel).expand_as(self.smooth.weight))
        smooth_bias, bias = self.smooth.bias, self.linear.bias
        assert smooth_bias is not None and bias is not None
        smooth_bias.zero_()
        channels = y.shape[1]
        u = self.up(z, (y.shape[-2], y.shape[-1]))
        a = u.transpose(0, 1).flatten(1).double()
        b = y.transpose(0, 1).flatten(1).double()
        a_mean, b_mean = a.mean(dim=1, keepdim=True), b.mean(dim=1, keepdim=True)
        gram = (a - a_mean) @ (a - a_mean).T / a.shape[1]
        gram += 1e-3 * torch.eye(len(gram), dtype=a.dtype, device=a.device)
        weight = torch.linalg.solve(gram, (a - a_mean) @ (b - b_mean).T / a.shape[1]).T
        rest = (b - b_mean - weight @ (a - a_mean)).square().mean(dim=1).sqrt()
        self.linear.weight.zero_()
        self.linear.weight[:channels, :, 0, 0] = weight.float()
        bias[:channels] = (b_mean - weight @ a_mean)[:, 0].float()
        bias[channels:] = rest.clamp(2 * MIN_SCALE, math.exp(LOG_MAX)).log().float()


def _pyramid_gain(y: Tensor, blocks: Tensor) -> Tensor:
    """Bits [K] per block saved by coding 2x2 means of y [B, K, h, w] first, by Gaussian entropies."""
    up = blocks.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)[..., : y.shape[-2], : y.shape[-1]]
    total = y.var(dim=(0, 2, 3), unbiased=False) + _ROUNDING
    rest = (y - up).var(dim=(0, 2, 3), unbiased=False) + 2 * _ROUNDING
    block = blocks.var(dim=(0, 2, 3), unbiased=False) + _ROUNDING
    return 2 * torch.log2(total / rest) - 0.5 * torch.log2(2 * math.pi * math.e * block)


_HIDDEN = 64


class ChannelContext(nn.Module):
    """Corrects a group of channels from earlier ones, 1x1: starts at zero. `before`: channels already
    decoded. `channels`: of the group."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.inside = nn.Conv2d(2 * before, _HIDDEN, 1)
        self.out = nn.Conv2d(_HIDDEN, 2 * channels, 1)
        with torch.no_grad():
            for parameter in self.out.parameters():
                parameter.zero_()

    def forward(self, rest: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections [B, n, h, w] from decoded latents less their means, and their log-scales [B, before, h, w]."""
        relative = rest * (-log_scales.clamp(min=-1.0)).exp()
        relative = relative.clamp(-8.0, 8.0)
        hidden = F.gelu(self.inside(torch.cat([relative, relative.abs()], dim=1)))
        means, more = self.out(hidden).chunk(2, dim=1)
        return means, more


class SpaceContext(nn.Module):
    """Corrects latents of the checkerboard's second pass from their four neighbours, per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 4))
        self.scale = nn.Parameter(torch.zeros(channels, 4))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    @staticmethod
    def neighbours(x: Tensor) -> Tensor:
        """[B, C, h, w] to its neighbours above, below, left and right [B, C, 4, h, w], zero outside."""
        p = F.pad(x, (1, 1, 1, 1))
        around = [p[..., :-2, 1:-1], p[..., 2:, 1:-1], p[..., 1:-1, :-2], p[..., 1:-1, 2:]]
        return torch.stack(around, dim=2)

    def forward(self, rest: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections [B, C, h, w] from decoded latents less their means (zero where not decoded), and log-scales."""
        relative = (rest * (-log_scales.clamp(min=-1.0)).exp()).abs().clamp(max=8.0)
        means = torch.einsum("bckhw,ck->bchw", self.neighbours(rest), self.mean)
        more = torch.einsum("bckhw,ck->bchw", self.neighbours(relative), self.scale)
        return means, more + self.bias

    @torch.no_grad()
    def start(self, rest: Tensor) -> None:
        """Regress on the neighbours' sum, for latents less their means [B, C, h, w]; scales of the residuals."""
        around = self.neighbours(rest).sum(dim=2)
        cross = (around * rest).mean(dim=(0, 2, 3))
        slope = cross / (around.square().mean(dim=(0, 2, 3)) + 0.1)
        left = (rest - slope[:, None, None] * around).square().mean(dim=(0, 2, 3))
        self.mean.copy_(slope[:, None].expand_as(self.mean))
        before = rest.square().mean(dim=(0, 2, 3))
        self.bias.copy_(0.5 * ((left + 1e-3) / (before + 1e-3)).log()[:, None, None])
