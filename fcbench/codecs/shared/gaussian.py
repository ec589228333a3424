"""Zero-mean Gaussian latents on a grid of scales: the table that codes each symbol, and the cost of a symbol.

Scales are snapped to 64 levels of a logarithmic table and means to 1/64, so that encoder and decoder agree on both.
"""

import copy
import math

import torch
from torch import Tensor, nn

from fcbench.codecs.shared.entropy_models import GaussianConditional
from fcbench.codecs.shared.transforms import TAIL_MASS
from fcbench.coders.tables import EntropyTables, Groups

N_SCALES = 64
MIN_SCALE = 0.05
MAX_SCALE = 128.0
MEAN_GRID = 64.0  # Means are multiples of 1 / 64
LOG_MIN, LOG_MAX = math.log(MIN_SCALE), math.log(MAX_SCALE)
_LOG_STEP = (LOG_MAX - LOG_MIN) / (N_SCALES - 1)
SCALE_TABLE = [math.exp(LOG_MIN + _LOG_STEP * i) for i in range(N_SCALES)]


def paired(latents: Tensor) -> bool:
    """Whether latents [B, ...] have an even number of scalars per sample."""
    return latents[0].numel() % 2 == 0


def scale_indexes(log_scales: Tensor, pairs: bool) -> Tensor:
    """Nearest rows of the scale table, uint8 [B, ...]; with ``pairs``, neighbours share the row of their mean scale.

    Neighbours are the pairs of a sample's scalars in their order. If they are alike, sharing costs less than 0.1
    percent of the bits and halves the sorting by table, the most expensive part around the entropy coder.
    """
    rows = (log_scales - LOG_MIN) / _LOG_STEP
    if pairs:
        rows = rows.reshape(-1, 2).mean(dim=1, keepdim=True).expand(-1, 2).reshape(rows.shape)
    return torch.round(rows).clamp(0, N_SCALES - 1).to(torch.uint8)


def scale_groups(indexes: Tensor, pairs: bool) -> Groups:
    """Groups of one sample's symbols by its scale indexes [1, ...], which neighbours share with ``pairs``."""
    of_runs = indexes.flatten()[:: 2 if pairs else 1].contiguous()
    return Groups.by_index(of_runs.numpy(), N_SCALES, pairs=pairs)


def snapped(means: Tensor) -> Tensor:
    """Means on their grid, float32."""
    return (torch.round(means * MEAN_GRID) / MEAN_GRID).float()


class GaussianTables(nn.Module):
    """Likelihoods in training, tables in coding: CompressAI's GaussianConditional, frozen once."""

    def __init__(self) -> None:
        super().__init__()
        self.gaussian = GaussianConditional(SCALE_TABLE, scale_bound=MIN_SCALE, tail_mass=TAIL_MASS)
        self.tables = EntropyTables()

    def likelihood(self, y: Tensor, log_scales: Tensor, means: Tensor) -> Tensor:
        """Likelihood of latents y [B, ...], with uniform noise in train mode, rounded in eval mode."""
        scales = log_scales.clamp(LOG_MIN, LOG_MAX).exp()
        likelihood: Tensor = self.gaussian(y, scales, means)[1]
        return likelihood

    def log_scales(self, indexes: Tensor) -> Tensor:
        """Log-scales [B, ...] of rows of the table."""
        return self.gaussian.scale_table.log()[indexes.long()]

    def freeze(self) -> None:
        """Fill the tables."""
        gaussian = copy.deepcopy(self.gaussian)
        gaussian.update()
        self.tables.fill(gaussian.quantized_cdf, gaussian.cdf_length, gaussian.offset, escape=True)
