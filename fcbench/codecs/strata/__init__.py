"""Our own codec ``strata``: a spectrum of features coded ring by ring, from the mean to the finest detail.

    x --normalize--> DCT of the map, KLT of each band --> y --rate-distortion optimized rounding--> q --> bytes
                                                           ring by ring, scales from table and rings before
    q --> centroids --> inverse KLT and DCT --> residual layers --> x_hat

There is no hyper-latent: at the low rates that matter here it costs more than it saves. A coefficient's scale is that
of its channel and relative frequency in training, corrected by the ratio of actual to expected energy in the rings
decoded so far: overall, in its channel, and near it in the plane of frequencies. Its density is a mixture of two
zero-mean Gaussians in a fixed ratio to the scale. Rounding weighs squared error against bits at the slope where the
step is optimal; decoded values are the centroids of their cells.

What must agree between encoder and decoder is computed from decoded integers, in float64 on one thread, and snapped.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs.shared.gaussian import LOG_MAX, LOG_MIN, SCALE_TABLE, scale_groups, scale_indexes
from fcbench.codecs.shared.learned import Grid, Latents, LearnedPlugin, MapCoder, StageCode, StageCodes
from fcbench.codecs.shared.transforms import TAIL_MASS, high_rate_log_gain
from fcbench.codecs.strata.spectrum import N_CELLS, N_RINGS, Plane, Ring, Spectrum, plane
from fcbench.coders.escapes import PRECISION_BITS
from fcbench.coders.tables import EntropyTables, cdfs

_SLOPE = 6 / math.log(2)  # lmbda * step**2 at high rate: value of one squared step in bits
_STEPS = (1.0, 0.85, 0.72)  # relative to the high-rate step: candidates for the start
_N_FEATURES = 4
_PRIOR = 0.5  # energy that is added to both sides of a ratio
_CONTEXT_LR_SCALE = 5.0  # learning rate of context coefficients relative to transforms
_N_BINS = 8
_MIN_PROBABILITY = 2.0**-PRECISION_BITS
_BLOCK = 1 << 16  # coefficients that are coded at a time: what is computed for them stays in the cache
_FIT_STEPS, _FIT_SAMPLES = 60, 48
_FIT_COEFFICIENTS = 1 << 20  # of a ring: of a larger one, places spread evenly


def mixture(symbols: Tensor, log_scales: Tensor, mix: Tensor) -> Tensor:
    """Probabilities of integers, at least 2**-16, under the mixture: weight logit and log-ratios mix [3]."""
    size = symbols.abs()
    first = torch.sigmoid(mix[0])
    out = torch.zeros((), dtype=size.dtype, device=size.device)
    for weight, ratio in ((first, mix[1]), (1 - first, mix[2])):
        inverse = math.sqrt(0.5) * (-log_scales - ratio).exp()
        near, far = (size - 0.5) * inverse, (size + 0.5) * inverse
        out = out + 0.5 * weight * (torch.erfc(near) - torch.erfc(far))
    return out.clamp(min=_MIN_PROBABILITY)


def expected_energy(log_scales: Tensor) -> Tensor:
    """Approximate mean square of a rounded Gaussian."""
    scale = log_scales.exp()
    rare = torch.erfc(math.sqrt(0.5) * 0.55 / scale.clamp(max=1.0))
    return torch.where(scale > 1, scale.square(), rare * (1 + scale.square())) + 1e-4


class Expected(NamedTuple):
    """Energy to be expected before a ring: of each channel [C], and of each coefficient's neighbours [C, n]."""

    seen: Tensor
    near: Tensor


class ScaleNet(nn.Module):
    """Log-scales of a ring's coefficients, in units of the unquantized transform plus the gain."""

    def __init__(self, channels: int, log_gain: float) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.full((channels, 1), log_gain))
        self.log_scale = nn.Parameter(torch.zeros(channels, N_CELLS * N_CELLS))
        self.linear = nn.Parameter(torch.zeros(_N_FEATURES + 1, 3))

    def static(self, where: Plane) -> Tensor:
        """[C, h w] before any context."""
        return self.log_scale[:, where.cell.to(self.log_scale.device)] + self.log_gain

    @staticmethod
    def expected(where: Plane, static: Tensor) -> list[Expected | None]:
        """What is to be expected of each ring's context; None for those without."""
        usual = expected_energy(static.detach().clamp(LOG_MIN, LOG_MAX))
        out: list[Expected | None] = []
        for ring in where.rings:
            decoded = usual.index_select(1, ring.decoded.to(usual.device))
            out.append(None if ring.near is None else Expected(decoded.sum(1), _sum_of_near(decoded, ring.near)))
        return out

    def forward(self, ring: Ring, static: Tensor, expected: Expected | None, decoded: Tensor) -> Tensor:
        """Log-scales [B, C, n] of a ring, from squares [B, C, m] of the integers decoded before, ring by ring."""
        own = static.index_select(1, ring.index.to(static.device)).expand(len(decoded), -1, -1)
        return self.corrected(own, self.features(ring, expected, decoded))

    def corrected(self, own: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Log-scales [B, C, n] from static ones and the features of their context; of the first ring there are none."""
        if not features:
            return own.clamp(LOG_MIN, LOG_MAX)
        bend = own.clamp(-3.0, 3.0)
        bend2 = bend.square() / 4
        out = own
        for k, term in enumerate([*features, torch.ones(())]):
            a, b, c = (_CONTEXT_LR_SCALE * self.linear[k]).unbind()
            out = out + term * (a + b * bend + c * bend2)
        return out.clamp(LOG_MIN, LOG_MAX)

    @staticmethod
    def features(ring: Ring, expected: Expected | None, decoded: Tensor) -> list[Tensor]:
        """Log-ratios of decoded to expected energy, each to broadcast to [B, C, n]; none without context."""
        if ring.near is None or expected is None:
            return []
        seen, near = decoded.sum(dim=2), _sum_of_near(decoded, ring.near)
        want, near_want = expected

        def ratio(a: Tensor, b: Tensor) -> Tensor:
            return ((a + _PRIOR) / (b + _PRIOR)).log()

        return [
            ratio(seen.sum(1), want.sum())[:, None, None],
            ratio(seen, want)[:, :, None],
            ratio(near.sum(1), near_want.sum(0))[:, None],
            ratio(near, near_want),
        ]


def _sum_of_near(decoded: Tensor, near: Tensor) -> Tensor:
    """[..., n] sums over the neighbours [n, k] of each coefficient, of values [..., m] of what is decoded."""
    out = torch.zeros(())
    for k in near.T:
        out = out + decoded.index_select(-1, k.long().to(decoded.device))
    return out


@dataclass(frozen=True, slots=True)
class _Exact:
    """Data for coding all samples of one size: float64, on the CPU."""

    where: Plane
    net: ScaleNet
    static: Tensor
    blocks: list[list[tuple[Ring, Expected | None]]]  # parts of each ring that fit into a processor's cache


class StrataMap(MapCoder):
    """Codes the rings of one map."""

    stages = tuple(f"y{k}" for k in range(N_RINGS))

    def __init__(self, channels: int, lmbda: float) -> None:
        super().__init__()
        self.channels = channels
        self.spectrum = Spectrum(channels)
        self.net = ScaleNet(channels, high_rate_log_gain(lmbda))
        self.mix = nn.Parameter(torch.tensor([1.0, -0.25, 0.35]))
        self.shift = nn.Parameter(torch.zeros(2, _N_BINS))
        self.register_buffer("step", torch.ones(()))
        self.tables_y = EntropyTables()

    step: Tensor

    # ------------------------------------------------------------------------------------ beginning
    def prepare(self, x: Tensor) -> None:
        y = self.spectrum.start(x)
        where = plane(x.shape[-2], x.shape[-1])
        self.net.log_scale.copy_(_cell_log_scales(y, where.cell))
        some = y[:_FIT_SAMPLES]
        high_rate = self.net.log_gain.clone()
        costs = []
        for step in _STEPS:
            self.net.log_gain.copy_(high_rate - math.log(step))
            self.step.fill_(step)
            costs.append(self._cost(some[:16], where))
        self.step.fill_(_STEPS[int(np.argmin(costs))])
        self.net.log_gain.copy_(high_rate - self.step.log())
        self._fit(some, where)
        self._centroids(some, where)
        decoded = torch.cat([self(part)[0] for part in x.split(32)])
        self.spectrum.refine.start(decoded, x)

    def rescale(self, log_gain: float) -> None:
        self.net.log_gain.add_(log_gain)  # scales are relative to the gain

    def _cost(self, y: Tensor, where: Plane) -> float:
        """Bits, and the squared error in bits, of transform outputs [B, C, h w]."""
        log_scales = self.net.static(where).clamp(LOG_MIN, LOG_MAX)
        scaled = y * self.net.log_gain.exp()
        q = self._round(scaled, log_scales)
        bits = -mixture(q, log_scales, self.mix).log2().sum()
        worth = _SLOPE * self.step.square() * (scaled - q).square().sum()
        return float(bits + worth)

    def _fit(self, y: Tensor, where: Plane) -> None:
        """Fit context and mixture to integers of transform outputs [B, C, h w] by gradient descent on their bits."""
        scaled = y * self.net.log_gain.exp()
        static = self.net.static(where)
        q = self._round(scaled, static.clamp(LOG_MIN, LOG_MAX).expand_as(y))
        lots = [q[i::4] for i in range(4)] if len(q) >= 4 else [q]
        whole = [ring for ring in where.rings if len(ring.index)]
        rings = [ring.thinned(_FIT_COEFFICIENTS // q[..., 0].numel()) for ring in whole]
        weights = [len(ring.index) / len(some.index) for ring, some in zip(whole, rings)]
        expected = self.net.expected(replace(where, rings=tuple(rings)), static)
        # nothing here changes the integers, so nothing changes their context
        contexts = [[self._context(ring, static, wanted, lot) for ring, wanted in zip(rings, expected)] for lot in lots]
        learned = [self.net.linear, self.mix]
        optimizer = torch.optim.Adam([{"params": [self.net.linear], "lr": 1e-3}, {"params": [self.mix], "lr": 0.02}])
        with torch.enable_grad():
            for i in range(_FIT_STEPS):
                k = i % len(lots)
                bits = torch.zeros(())
                for weight, (symbols, own, features) in zip(weights, contexts[k]):
                    p = mixture(symbols, self.net.corrected(own, features), self.mix)
                    bits = bits - weight * p.log2().sum()
                # a map of one place has no context: its weights have no gradient
                grads = torch.autograd.grad(bits / lots[k].numel(), learned, allow_unused=True, materialize_grads=True)
                for parameter, grad in zip(learned, grads, strict=True):
                    parameter.grad = grad
                optimizer.step()
        for parameter in learned:
            parameter.grad = None

    def _context(
        self, ring: Ring, static: Tensor, expected: Expected | None, q: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """A ring's integers [B, C, n], static log-scales, and features of what is decoded before."""
        own = static[:, ring.index].expand(len(q), -1, -1)
        return q[:, :, ring.index], own, self.net.features(ring, expected, q[:, :, ring.decoded].square())

    def _centroids(self, y: Tensor, where: Plane) -> None:
        scaled = y * self.net.log_gain.exp()
        log_scales = self.net.static(where).clamp(LOG_MIN, LOG_MAX).expand_as(y)
        q = self._round(scaled, log_scales)
        rest = (scaled - q) * q.sign()
        bins = _bins(log_scales)
        for k, chosen in enumerate((q.abs() == 1, q.abs() > 1)):
            for b in range(_N_BINS):
                inside = rest[chosen & (bins == b)]
                self.shift[k, b] = inside.sum() / (len(inside) + 20.0)

    # ------------------------------------------------------------------------------------- training
    def _round(self, y: Tensor, log_scales: Tensor) -> Tensor:
        """Nearest integers, or those one smaller in magnitude if the bits saved outweigh the added error."""
        rounded = torch.round(y)
        some = rounded != 0
        size, scales = y[some].abs(), log_scales.expand_as(y)[some]
        up = torch.round(size)
        down = up - 1
        more = mixture(down, scales, self.mix) / mixture(up, scales, self.mix)
        worth = _SLOPE * self.step.square() * ((size - down) ** 2 - (size - up) ** 2)
        rounded[some] = torch.where(more.log2() > worth, down, up) * y[some].sign()
        return rounded

    def _bits(self, q: Tensor, y: Tensor, log_scales: Tensor) -> Tensor:
        """Bits [B] of integers q [B, C, n]; in train mode their gradient to y is that of y with uniform noise."""
        bits = -mixture(q, log_scales, self.mix).log2().sum(dim=(1, 2))
        if not self.training:
            return bits
        noisy = y + torch.rand_like(y) - 0.5
        soft = -mixture(noisy, log_scales.detach(), self.mix.detach()).log2()
        soft = soft.sum(dim=(1, 2))
        return bits + (soft - soft.detach())

    def _restored(self, q: Tensor, log_scales: Tensor) -> Tensor:
        bins = _bins(log_scales)
        shift = torch.where(q.abs() == 1, self.shift[0][bins], self.shift[1][bins])
        return q + q.detach().sign() * shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grid = (x.shape[-2], x.shape[-1])
        where = plane(*grid)
        y = self.spectrum.analyze(x) * self.net.log_gain.exp()
        static = self.net.static(where)
        expected = self.net.expected(where, static) if self.training else []
        exact = None if self.training else self._constants(where)
        energy = y.new_zeros(len(y), self.channels, 0)
        decoded = []
        bits = y.new_zeros(len(y))
        for k, (ring, latents) in enumerate(zip(where.rings, where.by_ring.parts(y))):
            if len(ring.index) == 0:
                continue
            if exact is None:
                log_scales = self.net(ring, static, expected[k], energy)
            else:
                log_scales = self._rows(self._indexes(exact, k, energy)).to(y)
            with torch.no_grad():
                rounded = self._round(latents, log_scales)
            q = rounded + (latents - latents.detach())
            bits = bits + self._bits(rounded, latents, log_scales)
            energy = torch.cat([energy, rounded.square()], dim=2)
            decoded.append(self._restored(q, log_scales))
        y_hat = where.by_ring.restore(torch.cat(decoded, dim=2))
        return self.spectrum.synthesize(y_hat * (-self.net.log_gain).exp(), grid), bits

    # --------------------------------------------------------------------------------------- coding
    def freeze(self) -> None:
        self._exact.clear()
        self.tables_y.fill(*_mixture_tables(self.mix.detach().double()), escape=True)

    @torch.no_grad()
    def _constants(self, where: Plane) -> _Exact:
        """What coding needs to know for maps of a size; kept while weights do not change."""
        frozen = self.tables_y.filled and not self.training
        if not (frozen and self._exact and self._exact[0].where is where):
            net = copy.deepcopy(self.net).cpu().double()
            static = net.static(where)
            rings = zip(where.rings, net.expected(where, static))
            self._exact[:] = [_Exact(where, net, static, [list(_blocks(*ring, self.channels)) for ring in rings])]
        exact: _Exact = self._exact[0]
        return exact

    @staticmethod
    @torch.no_grad()
    def _indexes(exact: _Exact, stage: int, energy: Tensor) -> Tensor:
        """Scale indexes uint8 [B, C, n] of a ring from what was decoded before, computed in float64 on the CPU."""
        squares = energy.detach().cpu().double()
        blocks = [exact.net(ring, exact.static, expected, squares) for ring, expected in exact.blocks[stage]]
        return torch.cat([scale_indexes(log_scales, pairs=False) for log_scales in blocks], dim=2)

    @staticmethod
    def _rows(indexes: Tensor) -> Tensor:
        return torch.tensor(SCALE_TABLE).log()[indexes.long()]

    def tables(self, stage: int) -> EntropyTables:
        return self.tables_y

    def code(self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]) -> StageCode | None:
        where = plane(*grid)
        ring = where.rings[stage]
        if len(ring.index) == 0:
            return None
        decoded = torch.cat([torch.zeros(1, self.channels, 0), *earlier], dim=2)
        indexes = self._indexes(self._constants(where), stage, decoded.square())
        shape = (1, self.channels, len(ring.index))
        return StageCode(scale_groups(indexes, pairs=False), shape, scales=self._rows(indexes))

    def analyze(self, x: Tensor) -> list[Tensor]:
        y = self.spectrum.analyze(x) * self.net.log_gain.exp()
        return list(plane(x.shape[-2], x.shape[-1]).by_ring.parts(y))

    def symbols(self, latents: Tensor, code: StageCode) -> Tensor:
        assert code.scales is not None
        return self._round(latents, code.scales)

    def synthesize(self, latents: Latents, codes: StageCodes, grid: Grid) -> Tensor:
        coded = [(q, code.scales) for q, code in zip(latents, codes) if code is not None and code.scales is not None]
        y = self._restored(*(torch.cat(values, dim=2) for values in zip(*coded)))
        return self.spectrum.synthesize(plane(*grid).by_ring.restore(y) * (-self.net.log_gain).exp(), grid)


def _blocks(ring: Ring, expected: Expected | None, channels: int) -> Iterator[tuple[Ring, Expected | None]]:
    """Parts of a ring, with at most `_BLOCK` coefficients of all channels each."""
    if ring.near is None or expected is None:
        yield ring, None
        return
    n = max(1, _BLOCK // channels)
    parts = zip(ring.index.split(n), ring.near.split(n), expected.near.split(n, dim=1))
    yield from ((Ring(index, ring.decoded, near), Expected(expected.seen, of_near)) for index, near, of_near in parts)


def _bins(log_scales: Tensor) -> Tensor:
    return (2 * log_scales + _N_BINS / 2).long().clamp(0, _N_BINS - 1)


def _cell_log_scales(y: Tensor, cell: Tensor) -> Tensor:
    """Log of root mean squares of y [B, C, h w] in each cell, [C, cells]; empty cells take the nearest one's."""
    power = y.square().mean(dim=0)
    sums = torch.zeros(len(power), N_CELLS * N_CELLS).index_add_(1, cell, power)
    counts = torch.zeros(N_CELLS * N_CELLS).index_add_(0, cell, torch.ones(len(cell)))
    places = torch.arange(N_CELLS * N_CELLS)
    at = torch.stack([places // N_CELLS, places % N_CELLS], dim=1).double()
    used = counts.nonzero()[:, 0]
    nearest = used[torch.cdist(at, at[used]).argmin(dim=1)]
    return 0.5 * (sums / counts.clamp(min=1) + 1e-8).log()[:, nearest]


def _mixture_tables(mix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """cdf [T, L], length [T], offset [T] of the mixture at every scale, the escape last."""
    shares, offsets = [], []
    for scale in SCALE_TABLE:
        radius = max(1, math.ceil(scale * math.exp(float(mix[1:].max())) * 5.0))
        symbols = torch.arange(-radius, radius + 1).double()
        log_scales = torch.full_like(symbols, math.log(scale))
        p = mixture(symbols, log_scales, mix).numpy()
        p = np.append(p, max(TAIL_MASS, 1.0 - p.sum()))
        shares.append(p / p.sum())
        offsets.append(-radius)
    return *cdfs(shares), torch.tensor(offsets)


PLUGIN = LearnedPlugin("strata", StrataMap)
