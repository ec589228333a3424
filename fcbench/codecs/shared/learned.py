"""Base of the learned codecs: one coder per map, all maps of a sample in one string.

Latents come in stages (``y``, or ``z`` then ``y``). A stage of all maps is coded before the next, so that the string
reads z of map 1, z of map 2, ..., y of map 1, ...
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs.shared.base import CodecBase, MapStats
from fcbench.codecs.shared.transforms import high_rate_log_gain
from fcbench.coders.foreign import package_version
from fcbench.coders.strings import StringDecoder, StringEncoder, coding_numerics
from fcbench.coders.tables import MAX_SYMBOL, EntropyTables, Groups
from fcbench.core.codecs import Bitstream, Codec, CodecPlugin, Decoded, Grids, Knobs, Objective, Program, number, only
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats


@dataclass(frozen=True, slots=True)
class StageCode:
    """Coding parameters of a stage of one map."""

    groups: Groups  # which table codes which symbol
    shape: tuple[int, ...]  # [1, ...] of the stage's latents
    means: Tensor | None = None  # added to decoded symbols, of that shape; None for zero
    scales: Tensor | None = None  # log-scales, of that shape, if the encoder optimizes rate; None if it only rounds

    def latents(self, symbols: np.ndarray) -> Tensor:
        """Decoded latents of symbols [n]."""
        values = torch.from_numpy(symbols).reshape(self.shape).float()
        return values if self.means is None else values + self.means


DecodedMaps = dict[int, Tensor]  # Normalized maps by their number
Latents = Sequence[Tensor]  # Of the stages of one map, in coding order
StageCodes = Sequence["StageCode | None"]  # How those stages are coded
Grid = tuple[int, int]  # (h, w)


class MapCoder(nn.Module):
    """Codes one map of normalized features. Subclasses define the stages."""

    stages: tuple[str, ...]
    exportable: bool = False
    """Coding uses only networks and tables: `analyze`, `entropy` for every stage but the first, `synthesize`."""

    def __init__(self) -> None:
        super().__init__()
        self._exact: list[Any] = []  # float64 copies for coding; in a list, so that they are not submodules

    def _load_from_state_dict(self, *args: Any) -> None:
        self._exact.clear()
        super()._load_from_state_dict(*args)

    def prepare(self, x: Tensor) -> None:
        """Initialize from normalized training features [B, C, h, w]."""
        raise NotImplementedError

    def is_corrected(self, x: Tensor) -> bool:
        """Whether `prepare` also starts what training needs beside weights: noise where features are few."""
        return False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The decoded features for normalized ones [B, C, h, w], and the estimated bits [B]."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Make the integer tables."""
        raise NotImplementedError

    def at(self, lmbda: float) -> None:
        """Set the operating point, in a codec of variable rate."""
        raise NotImplementedError

    def rescale(self, log_gain: float) -> None:
        """Multiply trained latents by a gain, and adjust their predictions."""
        raise NotImplementedError

    def tables(self, stage: int) -> EntropyTables:
        """Tables of a stage."""
        raise NotImplementedError

    def code(self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]) -> StageCode | None:
        """How a stage is coded, from the grid (h, w) and the latents of the stages before; None if it is empty."""
        raise NotImplementedError

    def entropy(self, stage: int, grid: tuple[int, int]) -> nn.Module:
        """Computation of `code` for a stage other than the first: latents before it -> means, scale indexes."""
        raise NotImplementedError

    def analyze(self, x: Tensor) -> list[Tensor]:
        """Unquantized latents of each stage."""
        raise NotImplementedError

    def symbols(self, latents: Tensor, code: StageCode) -> Tensor:
        """Integers, as floats, that code a stage's unquantized latents, of the code's shape."""
        return torch.round(latents if code.means is None else latents - code.means)

    def synthesize(self, latents: Latents, codes: StageCodes, grid: Grid) -> Tensor:
        """Normalized features for the grid (h, w), from the decoded latents and codes of all stages."""
        raise NotImplementedError


class LearnedCodec(CodecBase):
    """A codec of `MapCoder` parts, to be trained on ``bits per scalar + lmbda * distortion``."""

    def __init__(
        self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], make: Callable[[int], MapCoder]
    ) -> None:
        super().__init__(specs, stats)
        self.coders = nn.ModuleList(make(s.channels) for s in specs)

    @property
    def map_coders(self) -> list[MapCoder]:
        """Coder of each map, in coding order."""
        return [cast(MapCoder, m) for m in self.coders]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the latents, in coding order."""
        return self.map_coders[0].stages

    @property
    def passes(self) -> Sequence[Sequence[int]]:
        """Numbers of the maps that are coded together; what one pass decodes may predict the maps of the next."""
        return [range(len(self.specs))]

    def predicted(self, i: int, decoded: DecodedMaps, grid: Grid) -> Tensor | float:
        """What is known of map i, normalized, before it is decoded: coded is the difference."""
        return 0.0

    def learn(self, i: int, decoded: DecodedMaps, x: Tensor) -> None:
        """Make `predicted` for map i, from normalized training features of it and of the maps before."""

    @torch.no_grad()
    def prepare(self, batches: Sequence[Tensor]) -> None:
        decoded: DecodedMaps = {}
        for i in itertools.chain(*self.passes):
            coder, x = self.map_coders[i], self.map_stats[i].normalize(batches[i].float())
            self.learn(i, decoded, x)
            expected = self.predicted(i, decoded, _grid_of(x))
            coder.prepare(x - expected)
            if len(self.passes) > 1:
                decoded[i] = coder.eval()(x - expected)[0] + expected
                coder.train(self.training)

    @torch.no_grad()
    def continue_from(self, trained: Codec, at: float, to: float, batches: Sequence[Tensor]) -> None:
        """Take the weights of this codec trained at another lmbda; the gain changes as at high rate."""
        if any(coder.is_corrected(x) for coder, x in zip(self.map_coders, batches)):
            self.prepare(batches)
        state = self.state_dict()
        for name, value in cast(LearnedCodec, trained).state_dict().items():
            if state[name].numel():  # tables are empty until `freeze` makes them
                state[name].copy_(value)
        for coder in self.map_coders:
            coder.rescale(high_rate_log_gain(to) - high_rate_log_gain(at))

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Decoded maps (rounded latents, gradient straight through), and the estimated bits [B]. In train mode bits are
        those of latents with uniform noise, in eval mode those of the rounded latents."""
        decoded: DecodedMaps = {}
        bits = []
        for i in itertools.chain(*self.passes):
            x = self.map_stats[i].normalize(maps[self.names[i]])
            expected = self.predicted(i, decoded, _grid_of(x))
            x_hat, b = self.map_coders[i](x - expected)
            decoded[i] = x_hat + expected
            bits.append(b)
        out = [stats.restore(decoded[i]) for i, stats in enumerate(self.map_stats)]
        return self.named(out), torch.stack(bits).sum(dim=0)

    def estimate_bits(self, maps: dict[str, Tensor]) -> Tensor:
        """Bits [B] by the entropy models, of rounded latents in eval mode."""
        return self.forward(maps)[1]

    def freeze(self) -> None:
        self.cpu().eval()
        for coder in self.map_coders:
            coder.freeze()

    @torch.no_grad()
    def programs(self, grids: Grids) -> dict[str, Program]:
        """Networks as programs of tensors (`fcbench.codecs.shared.programs` says which), for maps of one size."""
        from fcbench.codecs.shared import programs

        by_name: dict[str, Program] = {}
        for i, (coder, stats, grid) in enumerate(zip(self.map_coders, self.map_stats, self.grid(grids))):
            by_name |= programs.programs_of(i, coder, stats, grid)
        return by_name

    def through(self, run: Mapping[str, nn.Module]) -> LearnedCodec:
        """This codec with its programs, by name, instead of its networks and tables."""
        from fcbench.codecs.shared import programs

        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.stats = nn.ModuleList(MapStats.identity(spec) for spec in self.specs)
        other.coders = nn.ModuleList(programs.ProgramMap(i, c, run) for i, c in enumerate(self.map_coders))
        return other

    @coding_numerics()
    def encode(self, features: Features) -> Bitstream:
        """Code one sample on the CPU."""
        maps, grid = self.sample(features), self.grid(features.shapes)
        decoded: DecodedMaps = {}
        string, last = StringEncoder(), len(self.stages) - 1
        for n_passes, group in enumerate(self.passes, 1):
            expected = {i: self.predicted(i, decoded, grid[i]) for i in group}
            targets = {i: self.map_stats[i].normalize(maps[i]) - expected[i] for i in group}
            analyzed = {i: self.map_coders[i].analyze(x) for i, x in targets.items()}
            coded = {i: _CodedMap(self.map_coders[i], grid[i]) for i in group}
            for stage, part in enumerate(self.stages):
                for i, one in coded.items():
                    if (code := one.code(stage)) is None:
                        continue
                    symbols = _checked(one.coder.symbols(analyzed[i][stage], code))
                    string.put(one.coder.tables(stage), symbols, code.groups, self.parts(part)[i])
                    if stage < last or n_passes < len(self.passes):
                        one.latents.append(code.latents(symbols))
            if n_passes < len(self.passes):
                decoded |= {i: one.synthesized() + expected[i] for i, one in coded.items()}
        return Bitstream(string.finish(), string.n_symbols, string.check)

    @coding_numerics()
    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample on the CPU."""
        grid = self.grid(grids)
        decoded: DecodedMaps = {}
        string = StringDecoder(payload)
        string.require(sum(s.channels * h * w for s, (h, w) in zip(self.specs, grid, strict=True)))  # or more
        coded: dict[int, _CodedMap] = {}
        for group in self.passes:
            coded |= {i: _CodedMap(self.map_coders[i], grid[i]) for i in group}
            for stage, part in enumerate(self.stages):
                for i in group:
                    if (code := coded[i].code(stage)) is not None:
                        symbols = string.take(coded[i].coder.tables(stage), code.groups, self.parts(part)[i])
                        coded[i].latents.append(code.latents(symbols))
        parts = string.end()  # before any work on maps that a damaged payload only claims
        for i, one in coded.items():
            decoded[i] = one.synthesized() + self.predicted(i, decoded, grid[i])
        maps = [stats.restore(decoded[i]) for i, stats in enumerate(self.map_stats)]
        return Decoded(Features(self.named(maps)), string.n_symbols, string.check, parts)


class _CodedMap:
    """A map while its stages are coded or decoded."""

    def __init__(self, coder: MapCoder, grid: Grid) -> None:
        self.coder, self.grid = coder, grid
        self.latents: list[Tensor] = []
        self.codes: list[StageCode | None] = []

    def code(self, stage: int) -> StageCode | None:
        """How the next stage is coded; None where it is empty."""
        code = self.coder.code(stage, self.grid, self.latents)
        self.codes.append(code)
        if code is None:
            self.latents.append(torch.zeros(1, 0))
        return code

    def synthesized(self) -> Tensor:
        """What its coder decodes of all stages."""
        return self.coder.synthesize(self.latents, self.codes, self.grid)


def _grid_of(x: Tensor) -> Grid:
    return x.shape[-2], x.shape[-1]


class VariableLearnedCodec(LearnedCodec):
    """A learned codec whose operating point can be moved (`fcbench.core.codecs.VariableCodec`)."""

    def at(self, lmbda: float) -> None:
        """Set the operating point of all maps."""
        for coder in self.map_coders:
            coder.at(lmbda)


def _checked(rounded: Tensor) -> np.ndarray:
    """Integers [n] int32, below 2**24 in magnitude."""
    if not bool(rounded.abs().max() < MAX_SYMBOL):  # false for NaN too
        raise FcbenchError("a latent is NaN or 2**24 or more: features are far outside the training range")
    symbols: Any = rounded.flatten().to(torch.int32).numpy()
    return symbols


@dataclass(frozen=True)
class LearnedPlugin(CodecPlugin):
    """A learned codec with the one knob ``lmbda``."""

    name: str
    make: Callable[[int, float], MapCoder]  # (channels of a map, lmbda) to its untrained coder
    trained: bool = True
    frame: type[LearnedCodec] = LearnedCodec
    bases: tuple[str, ...] = ()

    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        lmbdas = (
            (0.12, 0.3, 0.8, 2.0, 6.0, 20.0) if objective in ("mse", "levels") else (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
        )
        return [{"lmbda": lmbda} for lmbda in lmbdas]

    def check(self, params: Knobs) -> None:
        """``lmbda`` alone, from 1e-6 to 1e6."""
        only(params, f"codec {self.name!r}", "lmbda")
        number(params, "lmbda", 1e-6, 1e6)

    @property
    def variable(self) -> bool:  # type: ignore[override]
        """Where one training serves all operating points."""
        return issubclass(self.frame, VariableLearnedCodec)

    @property
    def continued(self) -> bool:  # type: ignore[override]
        """True if a training serves only one operating point."""
        return not self.variable

    def versions(self) -> dict[str, str]:
        return package_version("compressai")

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> LearnedCodec:
        self.check(params)
        lmbda = float(params["lmbda"])
        return self.frame(specs, stats, lambda channels: self.make(channels, lmbda))
