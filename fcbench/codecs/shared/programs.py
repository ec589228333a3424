"""A learned codec's networks as programs of tensors alone, and a codec that runs them.

By name, for map ``i`` and stage ``k``; C channels, a fixed grid (h, w):

    analysis.i      features [1, C, h, w] -> latents of every stage, not yet rounded
    entropy.i.k     decoded latents of the stages before -> means of this stage's, float32, and the row of the Gaussian
                    tables that codes each, uint8; computed in float64. A stage without it has mean 0, one table per
                    channel
    synthesis.i     decoded latents of all stages -> features [1, C, h, w]; its buffers ``tables.0`` and ``tables.1``
                    are the integer tables of the first stage and of the others, laid out as CompressAI's
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fcbench.codecs.shared.base import MapStats
from fcbench.codecs.shared.gaussian import paired, scale_groups
from fcbench.codecs.shared.learned import Grid, Latents, MapCoder, StageCode, StageCodes
from fcbench.coders.tables import EntropyTables
from fcbench.core.codecs import Program
from fcbench.core.errors import FcbenchError


class _Analysis(nn.Module):
    def __init__(self, coder: MapCoder, stats: MapStats) -> None:
        super().__init__()
        self.coder, self.stats = coder, stats

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.coder.analyze(self.stats.normalize(x)))


class _Synthesis(nn.Module):
    def __init__(self, coder: MapCoder, stats: MapStats, grid: Grid) -> None:
        super().__init__()
        self.coder, self.stats, self.grid = coder, stats, grid
        self.tables = nn.ModuleList(copy.deepcopy(coder.tables(k)) for k in range(min(2, len(coder.stages))))

    def forward(self, *latents: Tensor) -> Tensor:
        return self.stats.restore(self.coder.synthesize(latents, [None] * len(latents), self.grid))


def programs_of(i: int, coder: MapCoder, stats: MapStats, grid: Grid) -> dict[str, Program]:
    """Programs of map i, each with arguments to trace it with. Raises `FcbenchError`: a codec that is not a chain
    of networks and tables, or a grid too small for a stage."""
    if not coder.exportable:
        raise FcbenchError("this codec is not networks and tables alone: export a factorized or a hyperprior codec")
    x = stats.mean.expand(-1, *grid)[None].clone()
    latents = tuple(t.round() for t in coder.analyze(stats.normalize(x)))
    if not all(t.numel() for t in latents):
        raise FcbenchError(f"a map of {grid[0]}x{grid[1]} leaves a stage empty: give a larger --image-size")
    by_name = {f"analysis.{i}": Program(_Analysis(coder, stats), (x,))}
    for k in range(1, len(coder.stages)):
        by_name[f"entropy.{i}.{k}"] = Program(coder.entropy(k, grid), latents[:k])
    return {**by_name, f"synthesis.{i}": Program(_Synthesis(coder, stats, grid), latents)}


class ProgramMap(MapCoder):
    """Codes one map by programs and their tables; the coder that they come from knows the shape of the first stage.
    Features are not normalized here: the programs do that."""

    def __init__(self, i: int, coder: MapCoder, programs: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stages = coder.stages
        self._first = coder.code
        self._analysis, self._synthesis = programs[f"analysis.{i}"], programs[f"synthesis.{i}"]
        self._entropy = {k: programs[f"entropy.{i}.{k}"] for k in range(1, len(self.stages))}
        state, self._tables = self._synthesis.state_dict(), []
        for k in range(min(2, len(self.stages))):
            self._tables.append(EntropyTables())
            self._tables[k].load_state_dict({n: state[f"tables.{k}.{n}"] for n in self._tables[k].state_dict()})

    def tables(self, stage: int) -> EntropyTables:
        return self._tables[min(stage, 1)]

    @torch.no_grad()
    def code(self, stage: int, grid: Grid, earlier: Sequence[Tensor]) -> StageCode | None:
        if stage == 0:
            return self._first(0, grid, earlier)
        means, indexes = self._entropy[stage](*earlier)
        return StageCode(scale_groups(indexes, paired(indexes)), tuple(means.shape), means)

    @torch.no_grad()
    def analyze(self, x: Tensor) -> list[Tensor]:
        return list(self._analysis(x))

    @torch.no_grad()
    def synthesize(self, latents: Latents, codes: StageCodes, grid: Grid) -> Tensor:
        out: Tensor = self._synthesis(*latents)
        return out
