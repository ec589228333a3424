"""Context from latents that are decoded already: corrections to means and log-scales."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN = 64


class ChannelContext(nn.Module):
    """From earlier channels to a group of later ones, 1x1: starts as no correction. `before`: channels that are
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
    """From the four neighbours of the checkerboard's first pass to a latent of the second, channel by channel."""

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
        """Regression on the neighbours' sum, from latents less their means [B, C, h, w]; scales of what remains."""
        around = self.neighbours(rest).sum(dim=2)
        cross = (around * rest).mean(dim=(0, 2, 3))
        slope = cross / (around.square().mean(dim=(0, 2, 3)) + 0.1)
        left = (rest - slope[:, None, None] * around).square().mean(dim=(0, 2, 3))
        self.mean.copy_(slope[:, None].expand_as(self.mean))
        before = rest.square().mean(dim=(0, 2, 3))
        self.bias.copy_(0.5 * ((left + 1e-3) / (before + 1e-3)).log()[:, None, None])
