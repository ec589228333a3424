"""Transforms of the learned codecs: invertible at the start, of any size, better than what they replace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.codecs._spectrum import (
    N_BANDS,
    N_CELLS,
    N_STAGES,
    Refinement,
    Spectrum,
    dct,
    inverse_dct,
    plane,
)
from fcbench.codecs._transforms import Analysis, Synthesis, half, init_klt, to_depth

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


@pytest.mark.parametrize("grid", GRIDS)
def test_cosines_are_orthonormal(grid: tuple[int, int]) -> None:
    x = smooth(2, 3, grid, 0).double()
    y = dct(x)
    torch.testing.assert_close(inverse_dct(y), x)
    assert float(y.square().sum()) == pytest.approx(float(x.square().sum()))


@pytest.mark.parametrize("grid", [*GRIDS, (64, 3), (40, 40)])
def test_plane_has_each_frequency_once(grid: tuple[int, int]) -> None:
    where, n = plane(*grid), grid[0] * grid[1]
    assert len(where.stages) == N_STAGES
    assert sorted(torch.cat([s.index for s in where.stages]).tolist()) == list(range(n))
    assert sorted(torch.cat([p for _, p in where.members]).tolist()) == list(range(n))
    assert int(where.band.max()) < N_BANDS and int(where.cell.max()) < N_CELLS**2
    assert where.stages[0].index.tolist() == [0]
    for k, stage in enumerate(where.stages[1:], 1):
        before = torch.cat([s.index for s in where.stages[:k]]).tolist()
        assert stage.decoded.tolist() == before
        if stage.near is not None:
            assert set(stage.near.flatten().tolist()) <= set(before)


@pytest.mark.parametrize("grid", GRIDS)
def test_spectrum_starts_invertible_at_any_size(grid: tuple[int, int]) -> None:
    spectrum = Spectrum(4)
    spectrum.start(smooth(16, 4, (8, 8), 1) + 2)
    x = smooth(2, 4, grid, 2) + 2
    with torch.no_grad():
        y = spectrum.analyze(x)
        torch.testing.assert_close(
            spectrum.synthesize(y, grid), x, atol=1e-4, rtol=1e-4
        )


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


def test_neighbours_in_the_plane_are_the_nearest_and_ties_take_the_first() -> None:
    where = plane(6, 6)
    first_ring = where.stages[1]
    assert first_ring.index.tolist() == [1, 6, 7]  # (0, 1), (1, 0), (1, 1)
    assert first_ring.near is not None and first_ring.near.tolist() == [[0]] * 3
    last = next(s for s in reversed(where.stages) if len(s.index))
    assert last.near is not None
    at = torch.stack([torch.arange(36) // 6, torch.arange(36) % 6]).double()
    for place, near in zip(last.index.tolist(), last.near.tolist(), strict=True):
        distance = (at - at[:, [place]]).square().sum(dim=0)
        ranked = sorted(last.decoded.tolist(), key=lambda q: float(distance[q]))
        wanted = [float(distance[q]) for q in ranked[: len(near)]]
        assert [float(distance[q]) for q in near] == wanted
