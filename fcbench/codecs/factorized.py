"""Factorized entropy model: the codec ``factorized``.

    x --normalize--> g_a --> y --round--> [EntropyBottleneck, one density per channel] --> bytes --> g_s --> x_hat

References: Balle, Minnen, Singh, Hwang, Johnston, Variational image compression with a scale hyperprior, ICLR 2018.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fcbench.codecs.shared.learned import Grid, Latents, LearnedPlugin, MapCoder, StageCode, StageCodes
from fcbench.codecs.shared.transforms import (
    Analysis,
    IntegerBottleneck,
    Synthesis,
    few,
    half,
    high_rate_log_gain,
    init_klt,
    round_through,
    to_depth,
    total_bits,
)
from fcbench.coders.tables import EntropyTables, Groups


class FactorizedMap(MapCoder):
    """Codes latents y of one map, one table per channel."""

    stages = ("y",)
    exportable = True

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__()
        self.g_a = Analysis(channels)
        self.g_s = Synthesis(channels)
        self.log_gain = nn.Parameter(torch.full((4 * channels, 1, 1), high_rate_log_gain(lmbda)))
        self.bottleneck = IntegerBottleneck(4 * channels)
        self.y_tables = EntropyTables()

    def is_corrected(self, x: Tensor) -> bool:
        return few(to_depth(x))

    def prepare(self, x: Tensor) -> None:
        x = init_klt(self.g_a, self.g_s, x)
        self.bottleneck.match(self.g_a(x, self.log_gain))

    def rescale(self, log_gain: float) -> None:
        self.log_gain.add_(log_gain)
        self.bottleneck.rescale(log_gain)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        more = self.g_a.correction(x)
        y = self.g_a(x + more, self.log_gain)
        _, likelihood = self.bottleneck(y)
        x_hat = self.g_s(round_through(y), self.log_gain, (x.shape[-2], x.shape[-1]))
        return x_hat - more, total_bits(likelihood)

    def freeze(self) -> None:
        self.y_tables.fill(*self.bottleneck.make_tables(), escape=True)

    def tables(self, stage: int) -> EntropyTables:
        return self.y_tables

    def code(self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]) -> StageCode:
        channels = self.log_gain.shape[0]
        h, w = half(grid)
        return StageCode(Groups.equal(channels, h * w), (1, channels, h, w))

    def analyze(self, x: Tensor) -> list[Tensor]:
        return [self.g_a(x, self.log_gain)]

    def synthesize(self, latents: Latents, codes: StageCodes, grid: Grid) -> Tensor:
        return self.g_s(latents[0], self.log_gain, grid)


PLUGIN = LearnedPlugin("factorized", FactorizedMap)
