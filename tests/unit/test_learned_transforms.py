"""Transforms of the learned codecs: invertible at the start, of any size, better than what they replace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.codecs.shared.transforms import (
    MIN_POSITIONS_PER_DIM,
    Analysis,
    Synthesis,
    half,
    held_out_variances,
    init_klt,
    klt,
    to_depth,
)
from fcbench.codecs.strata.spectrum import N_BANDS, N_CELLS, N_RINGS, Refinement, Spectrum, dct, inverse_dct, plane
from fcbench.core import registry
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.core.rates import rate_alarm

GRIDS = [(1, 1), (1, 9), (5, 7), (8, 8), (23, 30)]


def smooth(n: int, channels: int, grid: tuple[int, int], seed: int) -> Tensor:
    """[n, C, h, w] spatially correlated noise of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, channels, grid[0] + 4, grid[1] + 4, generator=generator)
    return F.avg_pool2d(noise, 5, 1) * 5


@pytest.mark.parametrize("grid", GRIDS)
def test_depth_is_half_the_size_and_loses_nothing(grid: tuple[int, int]) -> None:
    x = smooth(2, 3, grid, 0)
    deep = to_depth(x)
    assert deep.shape == (2, 12, *half(grid))
    assert torch.equal(F.pixel_shuffle(deep, 2)[..., : grid[0], : grid[1]], x)


@pytest.mark.parametrize("grid", GRIDS)
def test_block_klt_starts_invertible_and_ordered(grid: tuple[int, int]) -> None:
    analysis, synthesis, gain = Analysis(3), Synthesis(3), torch.zeros(12, 1, 1) + 0.3
    init_klt(analysis, synthesis, smooth(16, 3, (8, 8), 1))
    x = smooth(2, 3, grid, 2)
    with torch.no_grad():
        torch.testing.assert_close(synthesis(analysis(x, gain), gain, grid), x)
        power = analysis(smooth(64, 3, (8, 8), 3), gain).var(dim=(0, 2, 3))
    assert float(power[0]) > 5 * float(power[-1])


def low_rank(n: int, channels: int, seed: int) -> Tensor:
    """[n, C, 8, 8] four smooth signals mixed into all channels, and white noise."""
    mix = torch.randn(channels, 4, generator=torch.Generator().manual_seed(99)) / 2
    white = torch.randn(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("cr,nrhw->nchw", mix, smooth(n, 4, (8, 8), -seed)) + white / 3


@pytest.mark.parametrize(("n_maps", "is_few"), [(12, False), (11, True)])
def test_plenty_of_positions_start_from_the_features_themselves(n_maps: int, is_few: bool) -> None:
    """Sixteen positions a map, 24 dimensions: twelve maps are the first that suffice."""
    assert (n_maps * 16 < MIN_POSITIONS_PER_DIM * 24) == is_few
    x = low_rank(n_maps, 6, 1)
    analysis, synthesis = Analysis(6), Synthesis(6)
    assert (init_klt(analysis, synthesis, x) is x) != is_few
    assert bool(analysis.correction(x).any()) == is_few
    rows, _ = klt(to_depth(x))
    assert torch.equal(analysis.klt.weight[:, :, 0, 0], rows.float())


@pytest.mark.parametrize(("n_maps", "within"), [(1, 0.5), (2, 0.25), (6, 0.25)])
def test_held_out_variances_are_those_of_unseen_features(n_maps: int, within: float) -> None:
    """Of fewer positions than dimensions the sample's own are zero in most directions; one map tells less."""
    deep, unseen = to_depth(low_rank(n_maps, 32, 1)), to_depth(low_rank(64, 32, 2))
    rows, mean = klt(deep)

    def tail(x: Tensor) -> float:
        flat = x.transpose(0, 1).flatten(1).double() - mean[:, None]
        return float((rows @ flat).square().mean(dim=1)[96:].mean())

    assert tail(deep) < 1e-6
    expected = float(held_out_variances(deep)[96:].mean())
    assert expected == pytest.approx(tail(unseen), rel=within)


def test_one_position_expects_the_variance_of_normalized_features() -> None:
    assert torch.equal(held_out_variances(torch.zeros(1, 8, 1, 1)), torch.ones(8).double())


def test_what_is_unseen_is_drawn_in_training_only() -> None:
    """With the difference, features vary in every direction as held-out ones; the KLT of few maps is wrong alone."""
    x = low_rank(6, 32, 1)
    deep = to_depth(x)
    analysis = Analysis(32)
    start = init_klt(analysis, Synthesis(32), x)
    rows, mean = klt(deep)

    def power(features: Tensor) -> Tensor:
        flat = to_depth(features).transpose(0, 1).flatten(1).double() - mean[:, None]
        return (rows @ flat).square().mean(dim=1)

    wanted = held_out_variances(deep)
    torch.testing.assert_close(power(start), wanted, rtol=0.5, atol=0)
    many = x.repeat(20, 1, 1, 1)
    more = analysis.train().correction(many)
    torch.testing.assert_close(power(many + more), wanted, rtol=0.5, atol=0)
    assert torch.equal(analysis.eval().correction(x), torch.zeros(()))
    assert not [name for name in analysis.state_dict() if "correction" in name]


@pytest.mark.parametrize("name", ["factorized", "hyperprior"])
def test_few_training_positions_do_not_ring_the_rate_alarm(name: str) -> None:
    """Eight maps give 128 positions of 256 dimensions: what training has not seen costs its bits, no escapes."""
    x, unseen = low_rank(8, 64, 1), low_rank(4, 64, 2)
    mean, std = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3))
    stats = FeatureStats(mean, std, x.amin(dim=(0, 2, 3)), x.amax(dim=(0, 2, 3)))
    torch.manual_seed(0)
    specs = (FeatureSpec("map", 64, 16),)
    codec: Any = registry.get("codec", name).build(specs, {"map": stats}, {"lmbda": 6.0})
    codec.prepare([x])
    codec.freeze()
    n_bytes, bits = 0, 0.0
    with torch.no_grad():
        for one in unseen.split(1):
            n_bytes += len(codec.encode(Features({"map": one})).payload)
            bits += float(codec({"map": one})[1].sum())
    assert not rate_alarm(n_bytes, bits, len(unseen))
    assert 8 * n_bytes < 1.1 * unseen.numel()  # without: 1.3 bits a point


@pytest.mark.parametrize("grid", GRIDS)
def test_cosines_are_orthonormal(grid: tuple[int, int]) -> None:
    x = smooth(2, 3, grid, 0).double()
    y = dct(x)
    torch.testing.assert_close(inverse_dct(y), x)
    assert float(y.square().sum()) == pytest.approx(float(x.square().sum()))


@pytest.mark.parametrize("grid", [*GRIDS, (64, 3), (40, 40)])
def test_plane_has_each_frequency_once(grid: tuple[int, int]) -> None:
    where, n = plane(*grid), grid[0] * grid[1]
    assert len(where.rings) == N_RINGS
    assert sorted(torch.cat([s.index for s in where.rings]).tolist()) == list(range(n))
    for order in (where.by_band, where.by_ring):
        assert sorted(order.order.tolist()) == list(range(n))
        assert order.restore(order.sort(torch.arange(n))).tolist() == list(range(n))
    assert sum(where.by_band.sizes) == n and len(where.by_band.sizes) == len(where.bands)
    assert max(where.bands) < N_BANDS and int(where.cell.max()) < N_CELLS**2
    assert where.rings[0].index.tolist() == [0]
    for k, stage in enumerate(where.rings[1:], 1):
        before = torch.cat([s.index for s in where.rings[:k]]).tolist()
        assert stage.decoded.tolist() == before
        if stage.near is not None:
            assert 0 <= int(stage.near.min()) <= int(stage.near.max()) < len(before)


@pytest.mark.parametrize("grid", GRIDS)
def test_spectrum_starts_invertible_at_any_size(grid: tuple[int, int]) -> None:
    spectrum = Spectrum(4)
    spectrum.start(smooth(16, 4, (8, 8), 1) + 2)
    x = smooth(2, 4, grid, 2) + 2
    with torch.no_grad():
        y = spectrum.analyze(x)
        torch.testing.assert_close(spectrum.synthesize(y, grid), x, atol=1e-4, rtol=1e-4)


def test_spectrum_packs_smooth_features_into_few_coefficients() -> None:
    spectrum = Spectrum(4)
    y = spectrum.start(smooth(64, 4, (16, 16), 1))
    power = y.square().mean(dim=0).flatten().sort(descending=True).values
    assert float(power[: len(power) // 8].sum()) > 0.8 * float(power.sum())


def test_refinement_guesses_what_was_lost() -> None:
    """Points on a circle, of which one coordinate came through rounded."""
    torch.manual_seed(0)
    angle = torch.rand(64, 1, 6, 6) * 6.28
    x = torch.cat([angle.cos(), angle.sin(), angle.cos() * angle.sin()], dim=1)
    decoded = torch.cat([x[:, :2], torch.zeros_like(x[:, :1])], dim=1)
    refinement = Refinement(3)
    assert torch.equal(refinement(decoded), decoded)
    refinement.start(decoded[:48], x[:48])
    with torch.no_grad():
        left = (refinement(decoded[48:]) - x[48:]).square().mean()
    assert float(left) < 0.1 * float((decoded[48:] - x[48:]).square().mean())


@pytest.mark.parametrize("grid", [(6, 6), (7, 50), (64, 40)])
def test_neighbours_in_the_plane_are_the_nearest_and_ties_take_the_first(grid: tuple[int, int]) -> None:
    where, (h, w) = plane(*grid), grid
    assert where.rings[1].near is not None and where.rings[1].near.tolist() == [[0]] * 3
    at = torch.stack([torch.arange(h * w) // w * w, torch.arange(h * w) % w * h])
    for ring in where.rings[1:]:
        if len(ring.index) == 0:
            continue
        assert ring.near is not None
        distance = (at[:, ring.index, None] - at[:, None, ring.decoded]).square().sum(dim=0)
        ranked = distance.sort(dim=1, stable=True).indices
        assert torch.equal(ring.near.long(), ranked[:, : ring.near.shape[1]])
