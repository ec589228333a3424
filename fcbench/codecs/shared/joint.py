"""Base of the learned codecs that code a pyramid coarse to fine: each decoded map predicts the next one.

    coarse map --coder--> decoded --bilinear, 1x1--> prediction of the finer map; coded is the difference

The prediction starts as the ridge regression of the finer map on the coarser one as it is decoded, and is trained with
the rest. Few training images can show fewer places than the coarser map has channels; the ridge is the one that
predicts held-out places best. With one map nothing differs from the plain frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.codecs.shared.learned import DecodedMaps, Grid, LearnedCodec, LearnedPlugin, MapCoder
from fcbench.core import registry
from fcbench.core.codecs import Grids, Program
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3)  # of the mean energy of the coarser map's channels; 1e3: no prediction


class JointLearnedCodec(LearnedCodec):
    """A learned codec of a pyramid: each map from the next coarser one."""

    def __init__(
        self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], make: Callable[[int], MapCoder]
    ) -> None:
        super().__init__(specs, stats, make)
        self._order = sorted(range(len(self.specs)), key=lambda i: -self.specs[i].stride_px)
        pairs = zip(self._order, self._order[1:])
        channels = [(self.specs[a].channels, self.specs[b].channels) for a, b in pairs]
        self.predictors = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for coarse, fine in channels)

    @property
    def passes(self) -> Sequence[Sequence[int]]:
        return [[i] for i in self._order]

    def _coarser(self, i: int, decoded: DecodedMaps, grid: Grid) -> tuple[nn.Conv2d, Tensor] | None:
        """The predictor of map i and the next coarser map at its size; None for the coarsest."""
        place = self._order.index(i)
        if place == 0:
            return None
        x = F.interpolate(decoded[self._order[place - 1]], grid, mode="bilinear", align_corners=False)
        return cast(nn.Conv2d, self.predictors[place - 1]), x

    def predicted(self, i: int, decoded: DecodedMaps, grid: Grid) -> Tensor | float:
        coarser = self._coarser(i, decoded, grid)
        return 0.0 if coarser is None else cast(Tensor, coarser[0](coarser[1]))

    @torch.no_grad()
    def learn(self, i: int, decoded: DecodedMaps, x: Tensor) -> None:
        coarser = self._coarser(i, decoded, (x.shape[-2], x.shape[-1]))
        if coarser is None:
            return
        predictor, coarse = coarser
        inputs, outputs = (v.permute(1, 0, 3, 2).flatten(1).double() for v in (coarse, x))
        (weight,) = _regressions(inputs, outputs, [_best_ridge(inputs, outputs)])
        predictor.weight.copy_(weight[:, :, None, None])
        cast(Tensor, predictor.bias).copy_(outputs.mean(dim=1) - weight @ inputs.mean(dim=1))

    def programs(self, grids: Grids) -> dict[str, Program]:
        if len(self.specs) == 1:
            return super().programs(grids)
        raise FcbenchError("maps that are predicted from one another cannot be exported: export a codec of each map")


def _regressions(inputs: Tensor, outputs: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """Weights [m, c] that predict outputs [m, n] from inputs [c, n], both less their means, for each ridge."""
    inputs, outputs = (v - v.mean(dim=1, keepdim=True) for v in (inputs, outputs))
    gram, cross = inputs @ inputs.T, inputs @ outputs.T
    unit = gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    for ridge in ridges:
        yield torch.linalg.solve(gram + ridge * unit, cross).T


def _best_ridge(inputs: Tensor, outputs: Tensor) -> float:
    """The ridge with which each half of the columns, which are neighbours, predicts the other half best."""
    n = inputs.shape[1] // 2
    errors = torch.zeros(len(_RIDGES), dtype=inputs.dtype)
    for seen, other in ((slice(n), slice(n, 2 * n)), (slice(n, 2 * n), slice(n))) if n else ():
        x, y = (v[:, other] - v[:, seen].mean(dim=1, keepdim=True) for v in (inputs, outputs))
        weights = _regressions(inputs[:, seen], outputs[:, seen], _RIDGES)
        errors += torch.stack([(y - weight @ x).square().sum() for weight in weights])
    return _RIDGES[int(errors.argmin())]


def joint(name: str) -> LearnedPlugin:
    """The plug-in ``NAME_joint`` of the learned codec of a name."""

    def make(channels: int, lmbda: float) -> MapCoder:
        plugin = registry.get("codec", name)
        assert isinstance(plugin, LearnedPlugin)
        return plugin.make(channels, lmbda)

    return LearnedPlugin(f"{name}_joint", make, frame=JointLearnedCodec, bases=(name,))
