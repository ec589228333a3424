"""Features as a spectrum: a cosine transform of the whole map, then a KLT of the channels in each band of frequencies.

Maps of vision features are smooth, the more so the stronger the channel: most of their energy is in few
coefficients of low frequency, and which channels go together changes with frequency. Any size of map works, with no
padding; statistics belong to relative frequencies, u / h and v / w, so that they carry over to other sizes.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.codecs.shared.transforms import Residual
from fcbench.core.errors import FcbenchError

N_BANDS = 12  # Half octaves of radial frequency: 0 holds the mean, 11 the corner
N_CELLS = 24  # Cells of frequency along an axis, finer where it is low
N_NEAR = 8  # Decoded neighbours in the plane of frequencies
_LOWEST = 0.03
_FREQUENCY_KNEE = 0.05
_CHUNK = 4096
_MAX_PLACES, _MAX_SIDE = 1 << 20, 1 << 12
_N_MEAN = 8  # cosine coefficients along an axis of the mean map
_MAX_HIDDEN = 1024
_MAX_POINTS = 1 << 15
_RIDGE = 3e-3
_REFINE_LR_SCALE = 8.0  # the refinement's outer layer learns this much more slowly
_SHRINK = 1.0  # weight of the next band's covariance, in samples per channel


@dataclass(frozen=True, slots=True)
class Ring:
    """Coefficients that are coded together, a ring of frequencies."""

    index: Tensor  # [n] places in the flattened plane
    decoded: Tensor  # [m] places of the rings before
    near: Tensor | None  # [n, up to 8] which of those are nearest, int16; None for the first ring

    def thinned(self, n_max: int) -> "Ring":
        """This ring with at most so many places, at least one, spread evenly over it."""
        every = max(1, math.ceil(len(self.index) / max(1, n_max)))
        return Ring(self.index[::every], self.decoded, None if self.near is None else self.near[::every])


class Order:
    """An order of the places of a plane, in parts of these sizes."""

    def __init__(self, order: Tensor, sizes: list[int]) -> None:
        self.order, self.inverse, self.sizes = order, torch.argsort(order), sizes

    def sort(self, y: Tensor) -> Tensor:
        """Values [..., h w] of the plane, in this order."""
        return y.index_select(-1, self.order.to(y.device))

    def parts(self, y: Tensor) -> tuple[Tensor, ...]:
        """The parts [..., n] of `sort`."""
        return self.sort(y).split(self.sizes, dim=-1)

    def restore(self, y: Tensor) -> Tensor:
        """Inverse of `sort`."""
        return y.index_select(-1, self.inverse.to(y.device))


@dataclass(frozen=True, slots=True)
class Plane:
    """Frequencies of a map (h, w), flattened row by row."""

    bands: tuple[int, ...]  # numbers of those that are there
    by_band: Order
    cell: Tensor  # [h w] cell of each, of N_CELLS**2
    rings: tuple[Ring, ...]  # low to high
    by_ring: Order


N_RINGS = 8


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept for training, too
def plane(h: int, w: int) -> Plane:
    """Geometry of the frequencies of a map, the same at both ends. Raises `FcbenchError` for an absurdly large one."""
    if h * w > _MAX_PLACES or max(h, w) > _MAX_SIDE:
        limits = f"at most {_MAX_PLACES} positions and {_MAX_SIDE} to a side"
        raise FcbenchError(f"strata codes maps of {limits}, got {h}x{w}: use smaller images")
    f = torch.stack(
        torch.meshgrid(
            torch.arange(h, dtype=torch.float64) / h, torch.arange(w, dtype=torch.float64) / w, indexing="ij"
        ),
        dim=-1,
    ).reshape(-1, 2)
    radius = f.square().sum(dim=1).sqrt()
    band = torch.round(2 * torch.log2(radius.clamp(min=_LOWEST) / _LOWEST)).long()
    band = band.clamp(max=N_BANDS - 1)
    axis = torch.log1p(f / _FREQUENCY_KNEE) / math.log1p(1 / _FREQUENCY_KNEE) * (N_CELLS - 1)
    node = torch.round(axis).long()
    bands, sizes = (v.tolist() for v in band.unique(return_counts=True))
    rings = _rings(h, w)
    by_band = Order(torch.argsort(band, stable=True), sizes)
    by_ring = Order(torch.cat([ring.index for ring in rings]), [len(ring.index) for ring in rings])
    return Plane(tuple(bands), by_band, node[:, 0] * N_CELLS + node[:, 1], rings, by_ring)


def _rings(h: int, w: int) -> tuple[Ring, ...]:
    """Rings and their neighbours, by exact integer distances: ties must fall the same way on any machine."""
    places = torch.arange(h * w)
    f = torch.stack([places // w * w, places % w * h])  # u / h and v / w times h w
    order = torch.argsort(f.square().sum(dim=0), stable=True)
    bounds = [0, 1, *(4 * 3**i for i in range(N_RINGS - 2)), len(order)]
    out = []
    for a, b in zip(bounds[:-1], bounds[1:], strict=True):
        index, decoded = order[a:b], order[:a]
        near = None
        if a > 0 and len(index) > 0:
            some = [_nearest(f[:, i], f[:, decoded]) for i in index.split(_CHUNK)]
            near = torch.cat(some).short()
        out.append(Ring(index, decoded, near))
    return tuple(out)


def _nearest(f: Tensor, others: Tensor) -> Tensor:
    """Places [n, up to 8] of the nearest of others [2, m] to each of f [2, n], the first of equals."""
    n_others = others.shape[1]
    if n_others <= 2 * N_NEAR:
        return _ranked(f, others, torch.arange(n_others).expand(f.shape[1], -1))[0]
    from scipy.spatial import KDTree

    some = KDTree(others.T.numpy()).query(f.T.numpy(), 2 * N_NEAR)[1]
    chosen, sure = _ranked(f, others, torch.from_numpy(some))
    for rows in (~sure).nonzero()[:, 0].split(_CHUNK):  # so many are as near that some are not among the candidates
        chosen[rows] = _ranked(f[:, rows], others, torch.arange(n_others).expand(len(rows), -1))[0]
    return chosen


def _ranked(f: Tensor, others: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of the candidates [n, c], and whether the last candidate [n] is farther away than those."""
    distance = (f[:, :, None] - others[:, candidates]).square().sum(dim=0)
    n_others = others.shape[1]
    keys = (distance * n_others + candidates).sort(dim=1).values
    chosen = keys[:, :N_NEAR]
    return chosen % n_others, keys[:, -1] // n_others > chosen[:, -1] // n_others


def cosines(n: int, like: Tensor) -> Tensor:
    """Orthonormal DCT-II, [n, n]."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * (k + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.to(like)


def dct(x: Tensor) -> Tensor:
    """[B, C, h, w] to its cosine coefficients, of that shape."""
    h, w = x.shape[-2:]
    return cosines(h, x) @ x @ cosines(w, x).T


def inverse_dct(y: Tensor) -> Tensor:
    """Inverse of `dct`."""
    h, w = y.shape[-2:]
    return cosines(h, y).T @ y @ cosines(w, y)


class Refinement(nn.Module):
    """x + 1x1(GELU(1x1(x))), wide: an estimate of the coding loss at a position from the decoded features.

    Features lie near a curved surface, which linear transforms do not know. The start is in closed form: random
    directions inside, ridge regression outside, on training features against their own decoded versions.

    References: Huang, Zhu, Siew, Extreme learning machine: theory and applications, Neurocomputing 2006.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = min(8 * channels, _MAX_HIDDEN)
        self.inside = nn.Conv2d(channels, hidden, 1)
        self.out = nn.Conv2d(hidden, channels, 1)
        with torch.no_grad():
            for parameter in self.out.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h, w]."""
        return x + self.out(F.gelu(self.inside(x)) / _REFINE_LR_SCALE)

    @torch.no_grad()
    def start(self, decoded: Tensor, x: Tensor) -> None:
        """Start from decoded features and the true ones [B, C, h, w]."""
        a = decoded.transpose(0, 1).flatten(1).T
        rest = (x - decoded).transpose(0, 1).flatten(1).T
        if len(a) > _MAX_POINTS:
            chosen = torch.randperm(len(a))[:_MAX_POINTS]
            a, rest = a[chosen], rest[chosen]
        weight, bias, out = self.inside.weight, self.inside.bias, self.out.bias
        assert bias is not None and out is not None
        weight.normal_().div_(a.square().sum(dim=1).mean().sqrt().clamp(min=1e-3))
        bias.normal_(std=0.5)
        hidden = F.gelu(F.linear(a, weight[:, :, 0, 0], bias))
        middle, level = hidden.mean(dim=0), rest.mean(dim=0)
        hidden -= middle
        gram = (hidden.T @ hidden / len(a)).double()
        gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
        cross = (hidden.T @ (rest - level) / len(a)).double()
        solved = torch.linalg.solve(gram, cross).T.float()
        self.out.weight.copy_(_REFINE_LR_SCALE * solved[:, :, None, None])
        out.copy_(level - solved @ middle)


class Spectrum(nn.Module):
    """g_a and g_s in the plane of frequencies::

    x --residual--> --DCT--> --less the mean map--> --KLT of the band--> y [B, C, h w]
    x <--2 residuals-- <--inverse DCT-- <--plus the mean map-- <--KLT'-- y_hat
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = Residual(channels)
        self.refine = Refinement(channels)
        self.after = Residual(channels)
        eye = torch.eye(channels).repeat(N_BANDS, 1, 1)
        self.forth = nn.Parameter(eye.clone())
        self.back = nn.Parameter(eye.clone())
        self.mean = nn.Parameter(torch.zeros(channels, _N_MEAN, _N_MEAN))

    def mean_map(self, h: int, w: int) -> Tensor:
        """[C, h, w] coefficients of the mean, zero beyond the lowest ones."""
        out = self.mean.new_zeros(self.mean.shape[0], h, w)
        a, b = min(h, _N_MEAN), min(w, _N_MEAN)
        out[:, :a, :b] = self.mean[:, :a, :b] * math.sqrt(h * w)
        return out

    def analyze(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C, h w]."""
        h, w = x.shape[-2:]
        flat = (dct(self.before(x)) - self.mean_map(h, w)).flatten(2)
        return _by_band(flat, self.forth, plane(h, w))

    def synthesize(self, y: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, C, h w] to [B, C, h, w]."""
        flat = _by_band(y, self.back, plane(*grid))
        whole = flat.unflatten(2, grid) + self.mean_map(*grid)
        out: Tensor = self.after(self.refine(inverse_dct(whole)))
        return out

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """Mean map and KLTs of normalized training features [B, C, h, w]. Returns their y [B, C, h w]."""
        n, _, h, w = x.shape
        y = dct(x)
        mean = y.mean(dim=0)
        noise = y.var(dim=0, unbiased=False) / n
        mean *= (1 - noise / mean.square().clamp(min=1e-12)).clamp(min=0)
        a, b = min(h, _N_MEAN), min(w, _N_MEAN)
        self.mean.zero_()
        self.mean[:, :a, :b] = mean[:, :a, :b] / math.sqrt(h * w)
        flat = (y - self.mean_map(h, w)).flatten(2)
        rows = _band_klts(flat, plane(h, w))
        self.forth.copy_(rows)
        self.back.copy_(rows.transpose(1, 2))
        return _by_band(flat, self.forth, plane(h, w))


def _by_band(y: Tensor, matrices: Tensor, where: Plane) -> Tensor:
    """Each band's matrix [C, C] applied to the coefficients [B, C, h w] in it."""
    parts = zip(where.bands, where.by_band.parts(y))
    return where.by_band.restore(torch.cat([matrices[band] @ part for band, part in parts], dim=2))


def _band_klts(y: Tensor, where: Plane) -> Tensor:
    """KLT rows of each band [N_BANDS, C, C], from coefficients [B, C, h w]; absent bands take a neighbour's. A band
    of few coefficients borrows from the next higher one, which is similar and better estimated."""
    channels = y.shape[1]
    rows = torch.zeros(N_BANDS, channels, channels)
    known: list[int] = []
    above = None
    for band, part in reversed(list(zip(where.bands, where.by_band.parts(y)))):
        flat = part.transpose(0, 1).flatten(1).double()
        cov = flat @ flat.T / flat.shape[1]
        if above is not None and float(above.trace()) > 0:
            share = _SHRINK * channels / (flat.shape[1] + _SHRINK * channels)
            cov = (1 - share) * cov + share * above * (cov.trace() / above.trace())
        above = cov
        rows[band] = torch.linalg.eigh(cov)[1].flip(1).T.float()
        known.append(band)
    for band in range(N_BANDS):
        rows[band] = rows[min(known, key=lambda b: (abs(b - band), b))]
    return rows
