"""Density, rounding and tables of the codec ``strata``."""

from __future__ import annotations

import math

import pytest
import torch

from fcbench.codecs import strata
from fcbench.codecs.shared.gaussian import SCALE_TABLE
from fcbench.codecs.strata import StrataMap, _mixture_tables, expected_energy, mixture
from fcbench.coders.tables import EntropyTables

MIX = torch.tensor([1.0, -0.25, 0.35], dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, 40.0])
def test_mixture_is_a_probability_near_that_of_the_density(scale: float) -> None:
    symbols = torch.arange(-400, 401).double()
    log_scales = torch.full_like(symbols, math.log(scale))
    p = mixture(symbols, log_scales, MIX)
    floor = 801 * 2.0**-16
    assert 1.0 <= float(p.sum()) + 1e-9 < 1.0 + floor + 1e-6
    assert torch.equal(p, p.flip(0))


def test_tables_cost_what_the_density_says() -> None:
    tables = EntropyTables()
    tables.fill(*_mixture_tables(MIX), escape=True)
    for row in (0, 20, 40, 63):
        radius = -int(tables.offset[row])
        symbols = torch.arange(-radius, radius + 1).double()
        p = mixture(symbols, torch.full_like(symbols, math.log(SCALE_TABLE[row])), MIX)
        bits = tables.bits(row)[:-1]
        mean = float((p * bits).sum() / p.sum())
        ideal = float(-(p * p.log2()).sum() / p.sum())
        assert mean == pytest.approx(ideal, rel=0.01, abs=0.005)


def test_expected_energy_is_that_of_rounded_gaussians() -> None:
    torch.manual_seed(0)
    for scale in (0.3, 0.6, 1.5, 8.0):
        true = float(torch.round(torch.randn(200_000) * scale).square().mean())
        guess = float(expected_energy(torch.tensor(math.log(scale))))
        assert 0.4 * true < guess < 2.5 * true


def test_rounding_trades_error_for_bits() -> None:
    """Cost at the slope falls against plain rounding, at every scale; sizes only shrink, by one at most."""
    coder = StrataMap(4, 1.0)
    torch.manual_seed(0)
    for log_scale in (-1.0, 0.0, 1.0, 3.0):
        y = torch.randn(1, 4, 5000) * math.exp(log_scale)
        log_scales = torch.full_like(y, log_scale)
        with torch.no_grad():
            plain, chosen = torch.round(y), coder._round(y, log_scales)
            costs = [
                -mixture(q, log_scales, coder.mix).log2() + 6 / math.log(2) * (y - q).square() for q in (plain, chosen)
            ]
        assert bool((costs[1] <= costs[0] + 1e-4).all())
        assert bool(((plain.abs() - chosen.abs()) >= 0).all())
        assert bool(((plain.abs() - chosen.abs()) <= 1).all())
        if log_scale < 1:
            assert float(costs[1].mean()) < float(costs[0].mean())


def fitted(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Context coefficients and mixture of a prepared coder, and the bits that it then estimates for x."""
    torch.manual_seed(0)
    coder = StrataMap(x.shape[1], 2.0)
    with torch.no_grad():
        coder.prepare(x)
        bits = float(coder.train()(x)[1].sum())
    return coder.net.linear.detach(), coder.mix.detach(), bits


def test_contexts_of_large_maps_are_fitted_to_some_of_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    coarse = torch.randn(8, 6, 6, 6)
    x = torch.nn.functional.interpolate(coarse, (24, 24), mode="bilinear") + 0.2 * torch.randn(8, 6, 24, 24)
    linear, mix, bits = fitted(x)
    monkeypatch.setattr(strata, "_FIT_COEFFICIENTS", 8 * 6 * 40)  # 40 places of each ring, of up to 333
    thinned = fitted(x)
    assert not torch.equal(thinned[0], linear)
    assert bits == pytest.approx(thinned[2], rel=0.01)
    monkeypatch.setattr(strata, "_FIT_COEFFICIENTS", 1)  # one place of each
    assert math.isfinite(fitted(x)[2])


def test_coding_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    x = torch.randn(8, 6, 9, 11)
    found = []
    for block in (1, 50, 1 << 16):  # one place at a time, a few, all
        monkeypatch.setattr(strata, "_BLOCK", block)
        torch.manual_seed(0)
        coder = StrataMap(6, 20.0)
        with torch.no_grad():
            coder.prepare(x)
            coder.eval().freeze()
            latents, earlier, scales = coder.analyze(x[:1]), list[torch.Tensor](), list[torch.Tensor]()
            for stage, own in enumerate(latents):
                if (code := coder.code(stage, (9, 11), earlier)) is not None:
                    assert code.scales is not None
                    earlier.append(coder.symbols(own, code))
                    scales.append(code.scales)
        found.append(torch.cat(scales, dim=2))
    assert found[0].shape == (1, 6, 99) and len(found[0].unique()) > 3
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
