"""Base of the codecs whose symbols are entropy-coded by static tables: histograms of the training symbols.

A test sample of a few thousand symbols is too short to learn 100 histograms of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs.shared.base import CodecBase, MapStats
from fcbench.coders.strings import StringDecoder, StringEncoder, coding_numerics
from fcbench.coders.tables import EntropyTables, Groups, cdfs
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded, Grids, Knobs, Objective, only, whole_number
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats


def smoothed(histogram: np.ndarray) -> np.ndarray:
    """Probabilities [L] of counts [L] smoothed by one half each.

    References: Krichevsky and Trofimov, The performance of universal encoding, 1981.
    """
    shares: np.ndarray = (histogram + 0.5) / (histogram.sum() + 0.5 * len(histogram))
    return shares


class MapQuantizer(nn.Module):
    """Turns one map into symbols of ``n_tables`` tables, and back. Subclasses define how."""

    n_tables: int
    n_levels: int  # symbols are below

    def __init__(self) -> None:
        super().__init__()
        self.tables = EntropyTables()

    def learn(self, x: Tensor) -> None:
        """Learn from training features [B, C, h, w], and fill the tables."""
        raise NotImplementedError

    def quantize(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to non-negative symbols [T, B * h * w], int64."""
        raise NotImplementedError

    def dequantize(self, symbols: Tensor, batch: int, grid: tuple[int, int]) -> Tensor:
        """Symbols [T, B * h * w], int64, to [B, C, h, w]."""
        raise NotImplementedError

    def fill(self, histograms: Sequence[np.ndarray]) -> None:
        """Fill the tables from the counts [L] of each one's training symbols."""
        cdf, lengths = cdfs([smoothed(counts) for counts in histograms])
        self.tables.fill(cdf, lengths, torch.zeros(len(histograms)), escape=False)

    def bits(self, symbols: Tensor, batch: int) -> Tensor:
        """Estimated bits [B] of symbols [T, B * h * w]."""
        costs = [self.tables.bits(t) for t in range(self.n_tables)]
        table = nn.utils.rnn.pad_sequence(costs, batch_first=True).to(symbols.device)
        each = table.gather(1, symbols).reshape(self.n_tables, batch, -1)
        return each.sum(dim=(0, 2)).float()


class StaticCodec(CodecBase):
    """``{y: entropy-coded symbols of all maps}``. `normalized`: quantizers see zero mean and unit variance."""

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        quantizer: Callable[[MapStats], MapQuantizer],
        normalized: bool,
    ) -> None:
        super().__init__(specs, stats)
        self.normalized = normalized
        self.maps = nn.ModuleList(map(quantizer, self.map_stats))

    @property
    def quantizers(self) -> list[MapQuantizer]:
        """Quantizer of each map, in coding order."""
        return [cast(MapQuantizer, m) for m in self.maps]

    def _inward(self, maps: Iterable[Tensor]) -> list[Tensor]:
        return [s.normalize(x) if self.normalized else x for s, x in zip(self.map_stats, maps, strict=True)]

    def _outward(self, maps: Iterable[Tensor]) -> list[Tensor]:
        return [s.restore(x) if self.normalized else x for s, x in zip(self.map_stats, maps, strict=True)]

    @coding_numerics()
    def prepare(self, batches: Sequence[Tensor]) -> None:
        maps = self._inward(x.float().cpu() for x in batches)
        for quantizer, x in zip(self.quantizers, maps, strict=True):
            quantizer.learn(x)

    def freeze(self) -> None:
        if not all(q.tables.filled for q in self.quantizers):
            raise FcbenchError("this codec has no histograms yet: call prepare() with training features first")
        self.cpu().eval()

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Quantized maps (gradient passes straight through), and the estimated bits [B]."""
        ordered = [maps[name] for name in self.names]
        decoded, total = [], torch.zeros(())
        inward = self._inward(x.detach() for x in ordered)
        for quantizer, x in zip(self.quantizers, inward, strict=True):
            batch, _, h, w = x.shape
            symbols = quantizer.quantize(x)
            decoded.append(quantizer.dequantize(symbols, batch, (h, w)))
            total = total.to(x.device) + quantizer.bits(symbols, batch)
        pairs = zip(self._outward(decoded), ordered, strict=True)
        return self.named([y + (x - x.detach()) for y, x in pairs]), total

    def estimate_bits(self, maps: dict[str, Tensor]) -> Tensor:
        """Bits [B] by the tables."""
        return self.forward(maps)[1]

    @coding_numerics()
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        string = StringEncoder()
        maps = self._inward(self.sample(features))
        for quantizer, x, part in zip(self.quantizers, maps, self.parts("y"), strict=True):
            symbols = quantizer.quantize(x)
            groups = Groups.equal(*symbols.shape)
            flat = symbols.flatten().to(torch.int32).numpy()
            string.put(quantizer.tables, flat, groups, part)
        return Bitstream(string.finish(), string.n_symbols, string.check)

    @coding_numerics()
    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample. Raises `FcbenchError`: detectable damage."""
        string, maps = StringDecoder(payload), []
        string.require(sum(q.n_tables * h * w for q, (h, w) in zip(self.quantizers, self.grid(grids), strict=True)))
        for quantizer, (h, w), part in zip(self.quantizers, self.grid(grids), self.parts("y"), strict=True):
            groups = Groups.equal(quantizer.n_tables, h * w)
            flat = torch.from_numpy(string.take(quantizer.tables, groups, part)).long()
            if not 0 <= flat.min() <= flat.max() < quantizer.n_levels:
                raise FcbenchError(
                    "a decoded symbol is beyond the quantizer's levels: make the codec's checkpoint again"
                )
            symbols = flat.reshape(quantizer.n_tables, h * w)
            maps.append(quantizer.dequantize(symbols, 1, (h, w)))
        parts = string.end()
        return Decoded(Features(self.named(self._outward(maps))), string.n_symbols, string.check, parts)


@dataclass(frozen=True)
class StaticPlugin(CodecPlugin):
    """A static codec whose knobs are whole numbers."""

    name: str
    ranges: Mapping[str, tuple[int, int]]  # lowest and highest value by knob
    points: Sequence[tuple[int, ...]]  # the default sweep, low rate to high: values in the order of the knobs
    quantizer: Callable[..., MapQuantizer]  # (statistics of a map, values of the knobs) to its quantizer
    normalized: bool  # quantizers see features of zero mean and unit variance

    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        return [dict(zip(self.ranges, point, strict=True)) for point in self.points]

    def check(self, params: Knobs) -> None:
        """Check that all knobs are there, each a whole number in its range."""
        self._values(params)

    def _values(self, params: Knobs) -> list[int]:
        only(params, f"codec {self.name!r}", *self.ranges)
        return [whole_number(params, knob, *limits) for knob, limits in self.ranges.items()]

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> StaticCodec:
        values = self._values(params)
        return StaticCodec(specs, stats, lambda map_stats: self.quantizer(map_stats, *values), self.normalized)
