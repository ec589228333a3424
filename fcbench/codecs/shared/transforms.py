"""Transforms and entropy models that the learned codecs share.

1x1 and depthwise 3x3 layers only: on a CPU they train several times faster than dense 3x3 stacks. Everything starts
in closed form (KLT of the training features, gain from high-rate theory, logistic densities of the right width), so
that a few hundred training steps refine a codec that already works.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.codecs.shared.entropy_models import EntropyBottleneck

TAIL_MASS = 1e-6  # Approximate probability of a table's escape symbol
MIN_POSITIONS_PER_DIM = 8
"""Training positions per dimension from which their variances are trusted for held-out features."""

_N_FOLDS = 3
_N_DRAWN = 2  # positions per dimension of drawn features
_SEED = 0
_MAX_TABLE_RADIUS = 4096.0
_MIN_STD = 0.02


class Residual(nn.Module):
    """x + 1x1(GELU(depthwise 3x3(1x1(x)))), [B, C, h, w] to the same; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.GELU(),
            last,
        )
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h, w]."""
        return x + self.layers(x)


class VarianceCorrection(nn.Module):
    """Training noise that restores the variance that few training positions underestimate.

    In the directions of their KLT, few features have variances that are too large at first, then too small or zero. The
    difference shrinks the former and adds noise to the latter. It starts empty, is not in a checkpoint, and
    stays empty if there are enough positions.
    """

    rows: Tensor
    mean: Tensor
    less: Tensor
    more: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("rows", "mean", "less", "more"):
            self.register_buffer(name, torch.zeros(0), persistent=False)

    def start(self, deep: Tensor, rows: Tensor, mean: Tensor) -> None:
        """Start from features [B, D, h, w], and their KLT: rows [D, D] and mean [D], float64."""
        expected = held_out_variances(deep)
        flat = deep.transpose(0, 1).flatten(1).double() - mean[:, None]
        variances = (rows @ flat).square().mean(dim=1)
        self.rows, self.mean = rows.to(deep), mean.to(deep)
        self.less = 1 - (expected / variances.clamp(min=1e-12)).clamp(max=1).sqrt().to(deep)
        self.more = (expected - variances).clamp(min=0).sqrt().to(deep)

    def draw(self, deep: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Differences of features [B, D, h, w]. Noise is as strong as the features at a position, over all channels."""
        y = F.conv2d(deep - self.mean[:, None, None], self.rows[:, :, None, None])
        energy = y.square().mean(dim=1, keepdim=True)
        level = energy.mean()
        strength = (energy / level).sqrt() if level > 0 else torch.ones_like(energy)
        white = torch.randn(y.shape, generator=generator, device=y.device)
        change = white * strength * self.more[:, None, None]
        change -= y * self.less[:, None, None]
        return F.conv2d(change, self.rows.T[:, :, None, None])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Differences [B, C, h, w] of features, to add before coding and subtract after it; 0 outside training."""
        if not self.training or self.rows.numel() == 0:
            return x.new_zeros(())
        whole = F.pixel_shuffle(self.draw(to_depth(x)), 2)
        return whole[..., : x.shape[-2], : x.shape[-1]]


class Analysis(nn.Module):
    """g_a: normalized features to latents at half resolution, 2x2 blocks of all channels transformed together::

    x [B, C, h, w] --residual--> --2x2 to depth--> --KLT, 1x1--> --gain--> y [B, 4 C, ceil(h/2), ceil(w/2)]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.correction = VarianceCorrection()
        self.residual = Residual(channels)
        self.klt = nn.Conv2d(4 * channels, 4 * channels, 1)

    def forward(self, x: Tensor, log_gain: Tensor) -> Tensor:
        """[B, C, h, w] to [B, 4 C, ceil(h/2), ceil(w/2)]."""
        return self.klt(to_depth(self.residual(x))) * log_gain.exp()


class Synthesis(nn.Module):
    """g_s: latents to normalized features, the mirror of `Analysis`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.klt = nn.Conv2d(4 * channels, 4 * channels, 1)
        self.residuals = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, y: Tensor, log_gain: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, 4 C, ceil(h/2), ceil(w/2)] to [B, C, h, w] of the grid (h, w)."""
        whole = F.pixel_shuffle(self.klt(y * (-log_gain).exp()), 2)
        return self.residuals(whole[..., : grid[0], : grid[1]])


def to_depth(x: Tensor) -> Tensor:
    """2x2 blocks to channels, [B, C, h, w] to [B, 4 C, ceil(h/2), ceil(w/2)]; odd edges are repeated."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate")
    return F.pixel_unshuffle(x, 2)


def half(grid: tuple[int, int]) -> tuple[int, int]:
    """Size of the latents of a map (h, w).

    >>> half((23, 30))
    (12, 15)
    """
    return (grid[0] + 1) // 2, (grid[1] + 1) // 2


def klt(x: Tensor) -> tuple[Tensor, Tensor]:
    """Karhunen-Loeve transform of features [B, C, h, w]. Returns [C, C] orthonormal rows, largest variance first,
    float64; [C] mean, float64."""
    flat = x.transpose(0, 1).reshape(x.shape[1], -1).double()
    mean = flat.mean(dim=1, keepdim=True)
    centred = flat - mean
    values, vectors = torch.linalg.eigh(centred @ centred.T / max(flat.shape[1], 1))
    return vectors[:, values.argsort(descending=True)].T.contiguous(), mean[:, 0]


def few(deep: Tensor) -> bool:
    """Whether features [B, D, h, w] have too few positions to estimate their covariance [D, D]."""
    return deep.numel() // deep.shape[1] < MIN_POSITIONS_PER_DIM * deep.shape[1]


def held_out_variances(deep: Tensor) -> Tensor:
    """Variances [D], float64, that KLT outputs of unseen features will have, from normalized ones [B, D, h, w].

    With few positions the sample variances are too large in the first directions and, in all unseen ones, zero.
    So each image is measured in the directions of the others. Positions of an image are similar: only if
    there are fewer images than folds do they replace images. For a single position the result is 1.

    References: Bartz, Cross-validation based nonlinear shrinkage, arXiv 1611.00798, 2016; it improves on the linear
    shrinkage of Ledoit and Wolf, whose single weight depends on the largest variances.
    """
    if len(deep) < _N_FOLDS:
        deep = deep.permute(0, 2, 3, 1).reshape(-1, deep.shape[1], 1, 1)
    if len(deep) < 2:
        return deep.new_ones(deep.shape[1], dtype=torch.float64)
    fold = torch.arange(len(deep), device=deep.device) % _N_FOLDS
    energy = deep.new_zeros(deep.shape[1], dtype=torch.float64)
    for k in range(min(_N_FOLDS, len(deep))):
        rows, mean = klt(deep[fold != k])
        rest = deep[fold == k].transpose(0, 1).flatten(1).double()
        energy += (rows @ (rest - mean[:, None])).square().sum(dim=1)
    return energy * deep.shape[1] / deep.numel()


def high_rate_log_gain(lmbda: float) -> float:
    """Log of 1 / step that minimizes ``bits + lmbda * mse`` per scalar at high rate.

    With step d, bits are c - log2(d) and the error is d**2 / 12: d**2 = 6 / (lmbda ln 2).

    References: Gish and Pierce, Asymptotically efficient quantizing, 1968.

    >>> round(high_rate_log_gain(6 / 0.6931471805599453), 6)
    0.0
    """
    return 0.5 * math.log(lmbda * math.log(2) / 6)


def init_klt(analysis: Analysis, synthesis: Synthesis, x: Tensor) -> Tensor:
    """Make g_a the KLT of 2x2 blocks of normalized training features x [B, C, h, w], and g_s its inverse.

    Returns [B', C, h, w] the basis of scales and regressions: x, or, if it has too few positions for its
    dimensions, features drawn to vary like held-out ones.
    """
    deep = to_depth(x)
    rows, mean = klt(deep)
    with torch.no_grad():
        analysis.klt.weight.copy_(rows[:, :, None, None])
        synthesis.klt.weight.copy_(rows.T[:, :, None, None])
        if analysis.klt.bias is not None and synthesis.klt.bias is not None:
            analysis.klt.bias.copy_(-rows @ mean)
            synthesis.klt.bias.copy_(mean)
    if not few(deep):
        return x
    analysis.correction.start(deep, rows, mean)
    deep = deep.repeat(-(-_N_DRAWN * deep.shape[1] ** 2 // deep.numel()), 1, 1, 1)
    generator = torch.Generator(deep.device).manual_seed(_SEED)
    deep += analysis.correction.draw(deep, generator)
    return F.pixel_shuffle(deep, 2)[..., : x.shape[-2], : x.shape[-1]]


def round_through(x: Tensor) -> Tensor:
    """round(x) whose gradient is that of x.

    Rate sees uniform noise, distortion sees real rounding: at low rates, where most latents round to zero, noise
    alone would add an error that coding does not make.

    References: Minnen and Singh, Channel-wise autoregressive entropy models, ICIP 2020 (mixed quantization).
    """
    return torch.round(x).detach() + (x - x.detach())


class IntegerBottleneck(EntropyBottleneck):
    """CompressAI's EntropyBottleneck on the grid of integers: medians stay zero.

    So a decoded latent is the coded integer itself, with no float median on which two machines could disagree; the
    transform before it may shift its input.
    """

    _quantized_cdf: Tensor
    _cdf_length: Tensor
    _offset: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, tail_mass=TAIL_MASS)
        quantiles = self.quantiles.detach()
        del self.quantiles  # computed when tables are made, not trained
        self.register_buffer("quantiles", quantiles)

    def _get_medians(self) -> Tensor:
        return torch.zeros_like(self.quantiles[:, :, 1:2])

    @torch.no_grad()
    def match(self, y: Tensor) -> None:
        """Start as logistic densities, centred on 0, with the standard deviations of latents y [B, C, h, w]. While
        ``factors`` are zero the cumulative is the sigmoid of a line; its slope is spread over the layers."""
        std = y.transpose(0, 1).reshape(y.shape[1], -1).square().mean(dim=1).sqrt().clamp(min=_MIN_STD)
        slopes = math.pi / math.sqrt(3) / std
        ends = y.new_tensor([0.0, 1.0]).expand(self.channels, 1, 2)
        at = self._logits_cumulative(ends, stop_gradient=True)[:, 0]
        ratio = (slopes / (at[:, 1] - at[:, 0])) ** (1 / len(self.matrices))
        for matrix in self.matrices:
            slope = F.softplus(matrix) * ratio[:, None, None]
            matrix.copy_(slope + torch.log(-torch.expm1(-slope)))
        zero = self._logits_cumulative(ends[:, :, :1], stop_gradient=True)
        self.biases[-1].sub_(zero)

    @torch.no_grad()
    def rescale(self, log_gain: float) -> None:
        """Widen the densities by a gain."""
        slope = F.softplus(self.matrices[0]) * math.exp(-log_gain)
        self.matrices[0].copy_(slope + torch.log(-torch.expm1(-slope)))

    @torch.no_grad()
    def make_tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """cdf [C, L], length [C], offset [C]: CompressAI's tables, at exact quantiles."""
        self._update_quantiles()
        self.quantiles[:, :, 0].clamp_(-_MAX_TABLE_RADIUS, 0.0)
        self.quantiles[:, :, 1].zero_()
        self.quantiles[:, :, 2].clamp_(0.0, _MAX_TABLE_RADIUS)
        self.update(force=True)
        tables = self._quantized_cdf, self._cdf_length, self._offset
        empty = torch.zeros(0, dtype=torch.int32)
        self._quantized_cdf, self._cdf_length, self._offset = (empty, empty.clone(), empty.clone())
        return tables


def total_bits(likelihood: Tensor) -> Tensor:
    """Bits [B] of likelihoods [B, ...]."""
    return -torch.log2(likelihood).flatten(1).sum(dim=1)
