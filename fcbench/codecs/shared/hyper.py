"""Base of the codecs with a hyper-latent::

    x --normalize--> g_a --> y ---part by part---> round(y - mean) --> [Gaussian tables] --> bytes --> g_s --> x_hat
                             |                         ^ mean, scale         ^
                             h_a --> z --round--> [EntropyBottleneck] --> entropy net <-- parts of y decoded so far

y has half the resolution, z a quarter. They start as a pyramid in closed form: z carries block means of the
strongest KLT channels where that saves bits, and local activity; the means are the linear regression of y on z. y is
coded in parts: channel groups, each in one pass or in the two of a checkerboard. What must agree between encoder and
decoder is computed from decoded integers, in float64, on one thread, sample by sample.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from fcbench.codecs.shared.gaussian import (
    LOG_MAX,
    MIN_SCALE,
    GaussianTables,
    paired,
    scale_groups,
    scale_indexes,
    snapped,
)
from fcbench.codecs.shared.hyper_layers import (
    ChannelContext,
    GaussianParams,
    HyperAnalysis,
    HyperSynthesis,
    SpaceContext,
    hyper_channels,
)
from fcbench.codecs.shared.learned import Grid, Latents, MapCoder, StageCode, StageCodes
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


# ---------------------------------------------------------------------------------------------- parts
@dataclass(frozen=True, slots=True)
class Part:
    """Latents of a channel group that are coded together. `start, stop`: its channels."""

    group: int  # number of the group
    start: int
    stop: int
    first_pass: Tensor | None  # [h, w] where the group is already decoded; None in a first pass
    local: Tensor | None  # [n] positions in the group's flattened latents [(stop - start) h w]; None for all
    whole: bool  # the part is all of y

    def take(self, of_group: Tensor) -> Tensor:
        """[B, stop - start, h, w] to the part's [B, n]."""
        flat = of_group.flatten(1)
        return flat if self.local is None else flat[:, self.local.to(flat.device)]

    def put(self, values: Tensor, y: Tensor) -> Tensor:
        """y [B, C, h, w] with the part's values [B, n] at their positions."""
        if self.whole:
            return values.reshape(y.shape)
        area = y.shape[-2] * y.shape[-1]
        local = self.local
        if local is None:
            local = torch.arange((self.stop - self.start) * area)
        positions = (local + self.start * area).to(y.device)
        return y.flatten(1).index_copy(1, positions, values).reshape(y.shape)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # cached for training too
def parts_of(groups: tuple[int, ...], n_passes: int, h: int, w: int) -> list[Part]:
    """Parts of y [C, h, w]: group by group, in one pass or in the two of a checkerboard, one of which may be empty."""
    board = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == 0
    out, start = [], 0
    for g, n in enumerate(groups):
        stop = start + n
        if n_passes == 1:
            out.append(Part(g, start, stop, None, None, len(groups) == 1))
        else:
            for chosen, first_pass in ((board, None), (~board, board)):
                local = chosen.expand(n, h, w).flatten().nonzero()[:, 0]
                out.append(Part(g, start, stop, first_pass, local, False))
        start = stop
    return out


class EntropyNet(nn.Module):
    """Means and log-scales of y, part by part, from z and the parts before. Coding uses a float64 copy of it.

    `channels`: C of y. `hidden`: N of z. `groups`: sizes of the channel groups, in coding order; they sum to C.
    `n_passes`: 1, or 2 for a checkerboard in each group. `zero_mean`: predict scales only.
    """

    def __init__(
        self, channels: int, hidden: int, groups: Sequence[int] = (), n_passes: int = 1, zero_mean: bool = False
    ) -> None:
        super().__init__()
        self.groups, self.n_passes = tuple(groups) or (channels,), n_passes
        self.zero_mean = zero_mean
        self.h_s = HyperSynthesis(channels, hidden)
        before = [sum(self.groups[:g]) for g in range(1, len(self.groups))]
        self.channel = nn.ModuleList(ChannelContext(b, n) for b, n in zip(before, self.groups[1:], strict=True))
        self.space = nn.ModuleList(SpaceContext(n) for n in self.groups if n_passes == 2)

    @property
    def n_parts(self) -> int:
        """Number of parts of y, including empty ones."""
        return len(self.groups) * self.n_passes

    def parts(self, grid: tuple[int, int]) -> list[Part]:
        """Parts of y of size (h, w), in coding order."""
        return parts_of(self.groups, self.n_passes, *grid)

    def begin(self, z: Tensor, grid: tuple[int, int]) -> GaussianParams:
        """Means and log-scales [B, C, h, w] that z predicts."""
        means, log_scales = self.h_s(z, grid)
        return (torch.zeros_like(means) if self.zero_mean else means), log_scales

    def part(self, part: Part, base: GaussianParams, y: Tensor) -> GaussianParams:
        """Means and log-scales [B, n] of a part, from `begin` and y [B, C, h, w] decoded so far."""
        span = slice(part.start, part.stop)
        means, log_scales = base[0][:, span], base[1][:, span]
        if part.group > 0:
            before = slice(0, part.start)
            more = self.channel[part.group - 1](y[:, before] - base[0][:, before], base[1][:, before])
            means, log_scales = means + more[0], log_scales + more[1]
        if part.first_pass is not None:
            board = part.first_pass.to(y.device)
            rest = torch.where(board, y[:, span] - means, torch.zeros_like(means))
            more = self.space[part.group](rest, log_scales)
            means, log_scales = means + more[0], log_scales + more[1]
        return part.take(means), part.take(log_scales)

    def joined(self, latents: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """y [1, C, h, w] from z and the parts decoded so far, zero elsewhere."""
        y = torch.zeros(1, sum(self.groups), *grid)
        for part, values in zip(self.parts(grid), latents[1:]):
            y = part.put(values, y)
        return y

    def start(self, y: Tensor, z: Tensor) -> None:
        """Closed-form start from latents y [B, C, h, w] and rounded z."""
        self.h_s.start(y, z)
        if self.zero_mean:
            channels = y.shape[1]
            self.h_s.linear.weight[:channels].zero_()
            bias = self.h_s.linear.bias
            assert bias is not None
            rms = y.square().mean(dim=(0, 2, 3)).sqrt()
            bias[channels:] = rms.clamp(2 * MIN_SCALE, math.exp(LOG_MAX)).log()
        base = self.begin(z, (y.shape[-2], y.shape[-1]))
        rest, start = torch.round(y) - base[0], 0
        for n, space in zip(self.groups, self.space):
            cast(SpaceContext, space).start(rest[:, start : start + n])
            start += n


# ------------------------------------------------------------------------------------------- the codec
class HyperMap(MapCoder):
    """Codes latents z and y of one map. Subclasses choose the entropy net."""

    exportable = True

    def __init__(self, channels: int, lmbda: float, **context: Any) -> None:
        super().__init__()
        self.channels = 4 * channels
        self.hidden = hyper_channels(self.channels)
        self.g_a = Analysis(channels)
        self.g_s = Synthesis(channels)
        self.log_gain = nn.Parameter(torch.full((self.channels, 1, 1), high_rate_log_gain(lmbda)))
        self.h_a = HyperAnalysis(self.channels, self.hidden)
        self.net = EntropyNet(self.channels, self.hidden, **context)
        self.bottleneck = IntegerBottleneck(self.hidden)
        self.gaussian = GaussianTables()
        self.z_tables = EntropyTables()
        self._begun: list[tuple[Tensor, GaussianParams]] = []  # z of the current sample, and its `EntropyNet.begin`

    @property
    def stages(self) -> tuple[str, ...]:  # type: ignore[override]
        """z, then the parts of y."""
        n = self.net.n_parts
        return ("z", "y") if n == 1 else ("z", *(f"y{k}" for k in range(n)))

    def is_corrected(self, x: Tensor) -> bool:
        return few(to_depth(x))

    def prepare(self, x: Tensor) -> None:
        x = init_klt(self.g_a, self.g_s, x)
        y = self.g_a(x, self.log_gain)
        self.h_a.start(y)
        z = self.h_a(y)
        self.net.start(y, torch.round(z))
        self.bottleneck.match(z)
        self._exact.clear()
        self._begun.clear()

    def rescale(self, log_gain: float) -> None:
        self.log_gain.add_(log_gain)
        self.h_a.linear.weight *= math.exp(-log_gain)
        weight, bias = self.net.h_s.linear.weight, cast(Tensor, self.net.h_s.linear.bias)
        weight[: self.channels] *= math.exp(log_gain)
        bias[: self.channels] *= math.exp(log_gain)
        bias[self.channels :] += log_gain

    # ------------------------------------------------------------------------------------- training
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        more = self.g_a.correction(x)
        z, y = self.analyze_whole(x + more)
        bits = total_bits(self.bottleneck(z)[1])
        grid = (y.shape[-2], y.shape[-1])
        y_hat = torch.zeros_like(y)
        z_hat = round_through(z)
        base = self.net.begin(z_hat, grid) if self.training else None
        for part in self.net.parts(grid):
            latents = part.take(y[:, part.start : part.stop])
            if latents.shape[1] == 0:
                continue
            if base is not None:
                means, log_scales = self.net.part(part, base, y_hat)
            else:
                means, indexes = self._exactly(part, z_hat, y_hat)
                log_scales = self.gaussian.log_scales(indexes)
            bits = bits + total_bits(self.gaussian.likelihood(latents, log_scales, means))
            y_hat = part.put(round_through(latents - means) + means, y_hat)
        return self.restore(y_hat, (x.shape[-2], x.shape[-1])) - more, bits

    # --------------------------------------------------------------------------------------- coding
    def freeze(self) -> None:
        self._exact.clear()
        self.z_tables.fill(*self.bottleneck.make_tables(), escape=True)
        self.gaussian.freeze()

    @torch.no_grad()
    def _exactly(self, part: Part, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Snapped means [B, n] float32 and scale indexes uint8 of a part, computed in float64 on the CPU."""
        is_new, is_frozen = not (self._begun and self._begun[0][0] is z), self.gaussian.tables.filled
        if not self._exact or (is_new and not is_frozen):
            self._exact[:] = [copy.deepcopy(self.net).cpu().double()]
        net: EntropyNet = self._exact[0]
        if is_new:
            grid = (y.shape[-2], y.shape[-1])
            self._begun[:] = [(z, net.begin(z.detach().cpu().double(), grid))]
        means, log_scales = net.part(part, self._begun[0][1], y.detach().cpu().double())
        return snapped(means).to(y.device), scale_indexes(log_scales, paired(log_scales)).to(y.device)

    def tables(self, stage: int) -> EntropyTables:
        return self.z_tables if stage == 0 else self.gaussian.tables

    def code(self, stage: int, grid: tuple[int, int], earlier: Sequence[Tensor]) -> StageCode | None:
        grid = half(grid)
        if stage == 0:
            h, w = half(grid)
            return StageCode(Groups.equal(self.hidden, h * w), (1, self.hidden, h, w))
        part = self.net.parts(grid)[stage - 1]
        if part.local is not None and part.local.numel() == 0:
            return None
        means, indexes = self._exactly(part, earlier[0], self.net.joined(earlier, grid))
        return StageCode(scale_groups(indexes, paired(indexes)), (1, means.shape[1]), means)

    def entropy(self, stage: int, grid: tuple[int, int]) -> nn.Module:
        return _PartEntropy(self.net, stage, half(grid))

    def analyze_whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unquantized z and y."""
        y = self.g_a(x, self.log_gain)
        return self.h_a(y), y

    def analyze(self, x: Tensor) -> list[Tensor]:
        z, y = self.analyze_whole(x)
        parts = self.net.parts((y.shape[-2], y.shape[-1]))
        return [z, *(p.take(y[:, p.start : p.stop]) for p in parts)]

    def restore(self, y: Tensor, grid: tuple[int, int]) -> Tensor:
        """Normalized features of decoded y."""
        return self.g_s(y, self.log_gain, grid)

    def synthesize(self, latents: Latents, codes: StageCodes, grid: Grid) -> Tensor:
        return self.restore(self.net.joined(latents, half(grid)), grid)


class _PartEntropy(nn.Module):
    """Means and scale indexes [1, n] of a part, from z and the parts before, as in `HyperMap.code`. `grid`:
    (h, w) of y."""

    def __init__(self, net: EntropyNet, stage: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.stage, self.grid = copy.deepcopy(net).double(), stage, grid

    def forward(self, *earlier: Tensor) -> tuple[Tensor, Tensor]:
        part = self.net.parts(self.grid)[self.stage - 1]
        base = self.net.begin(earlier[0].double(), self.grid)
        means, log_scales = self.net.part(part, base, self.net.joined(earlier, self.grid).double())
        return snapped(means), scale_indexes(log_scales, paired(log_scales))
