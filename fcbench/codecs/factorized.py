"""Factorized entropy model: the codec ``factorized``.

    x --normalize--> g_a --> y --round--> [EntropyBottleneck, one density a channel] --> bytes --> g_s --> x_hat

References: Balle, Minnen, Singh, Hwang, Johnston, Variational image compression with a scale hyperprior, ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fcbench.codecs._base import Params, number, only
from fcbench.codecs._entropy import EntropyTables, Groups
from fcbench.codecs._learned import LearnedCodec, MapCoder, Plan
from fcbench.codecs._transforms import (
    Analysis,
    IntegerBottleneck,
    Synthesis,
    high_rate_log_gain,
    init_klt,
    round_through,
    total_bits,
)
from fcbench.types import FeatureSpec, FeatureStats


class FactorizedMap(MapCoder):
    """Codes latents y of one map, C tables."""

    stages = ("y",)

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__()
        self.g_a = Analysis(channels)
        self.g_s = Synthesis(channels)
        self.log_gain = nn.Parameter(
            torch.full((channels, 1, 1), high_rate_log_gain(lmbda))
        )
        self.bottleneck = IntegerBottleneck(channels)
        self.y_tables = EntropyTables()

    def prepare(self, x: Tensor) -> None:
        """KLT, and densities as wide as its outputs."""
        init_klt(self.g_a, self.g_s, x)
        self.bottleneck.match(self.g_a(x, self.log_gain))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, h, w] to the same, and bits [B]."""
        y = self.g_a(x, self.log_gain)
        _, likelihood = self.bottleneck(y)
        return self.g_s(round_through(y), self.log_gain), total_bits(likelihood)

    def freeze(self) -> None:
        """One table a channel."""
        self.y_tables.fill(*self.bottleneck.make_tables(), escape=True)

    def aux_loss(self) -> Tensor:
        """0-dim."""
        return self.bottleneck.loss()

    def tables(self, stage: int) -> EntropyTables:
        """y's."""
        return self.y_tables

    def plan(
        self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]
    ) -> Plan:
        """Channel-major, a table a channel."""
        channels = self.log_gain.shape[0]
        return Plan(Groups.equal(channels, grid[0] * grid[1]), (1, channels, *grid))

    def analyze(self, x: Tensor) -> list[Tensor]:
        """[y]."""
        return [self.g_a(x, self.log_gain)]

    def synthesize(self, latents: Sequence[Tensor]) -> Tensor:
        """Normalized features."""
        return self.g_s(latents[0], self.log_gain)


class _Plugin:
    summary = "learned transform, one learned density a channel"
    trained = True

    def sweep(
        self, objective: Literal["mse", "task"]
    ) -> list[dict[str, float | int | str]]:
        """``lmbda``, low rate to high."""
        lmbdas = (
            (0.12, 0.3, 0.8, 2.0, 6.0, 20.0)
            if objective == "mse"
            else (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
        )
        return [{"lmbda": lmbda} for lmbda in lmbdas]

    def build(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        params: Params,
    ) -> LearnedCodec:
        """``lmbda``: weight of the distortion against bits a feature point."""
        only(params, "factorized", "lmbda")
        lmbda = number(params, "lmbda", 1e-6, 1e6)
        return LearnedCodec(
            specs, stats, lambda channels: FactorizedMap(channels, lmbda)
        )


PLUGIN = _Plugin()
