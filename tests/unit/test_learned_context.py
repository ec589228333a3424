"""Coding order of the context codecs: every latent once, and none from what is not decoded yet."""

from __future__ import annotations

import pytest
import torch

from fcbench.codecs.elic import groups_of
from fcbench.codecs.shared.hyper import EntropyNet, parts_of
from fcbench.codecs.strata import ScaleNet
from fcbench.codecs.strata.spectrum import plane
from fcbench.coders.strings import StringEncoder

GRIDS = [(1, 1), (1, 4), (3, 5), (4, 4)]


def randomized(net: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3)
    return net.double().eval()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("groups", [(6,), (1, 2, 3)])
@pytest.mark.parametrize("n_passes", [1, 2])
def test_parts_put_back_what_they_take(grid: tuple[int, int], groups: tuple[int, ...], n_passes: int) -> None:
    y = torch.randn(2, 6, *grid)
    out = torch.full_like(y, torch.nan)
    for part in parts_of(groups, n_passes, *grid):
        out = part.put(part.take(y[:, part.start : part.stop]), out)
    assert torch.equal(out, y)


@pytest.mark.parametrize("channels", [4, 48, 320, 512])
def test_elic_groups_are_all_channels(channels: int) -> None:
    groups = groups_of(channels)
    assert sum(groups) == channels and min(groups) >= 1


@pytest.mark.parametrize("groups", [(6,), (1, 2, 3)])
def test_context_sees_decoded_parts_only(groups: tuple[int, ...]) -> None:
    """A change of a part moves no parameters of it or of earlier ones, and moves some of later ones."""
    net = randomized(EntropyNet(6, 4, groups, n_passes=2))
    assert isinstance(net, EntropyNet)
    grid, moved = (3, 5), 0
    base = net.begin(torch.randn(1, 4, 2, 3).double(), grid)
    parts = net.parts(grid)
    y = torch.randn(1, 6, *grid).double()
    changed = y + 1.0
    seen, other = torch.zeros_like(y), torch.zeros_like(y)
    with torch.no_grad():
        for part in parts:
            a, b = net.part(part, base, seen), net.part(part, base, other)
            again = net.part(part, base, part.put(a[0] + 9.0, seen))
            assert torch.equal(a[0], again[0]) and torch.equal(a[1], again[1])
            moved += not torch.equal(a[0], b[0])
            seen = part.put(part.take(y[:, part.start : part.stop]), seen)
            other = part.put(part.take(changed[:, part.start : part.stop]), other)
    assert moved == len(parts) - 1


def test_strata_context_sees_decoded_rings_only() -> None:
    net = randomized(ScaleNet(5, 0.0))
    assert isinstance(net, ScaleNet)
    where = plane(5, 7)
    energy = torch.randint(0, 9, (1, 5, 35)).double()
    with torch.no_grad():
        static = net.static(where)
        for stage, expected in zip(where.rings[1:], net.expected(where, static)[1:]):
            if not len(stage.index):
                continue
            known = energy[:, :, stage.decoded]
            log_scales = net(stage, static, expected, known)
            assert log_scales.shape == (1, 5, len(stage.index))
            assert not torch.equal(net(stage, static, expected, torch.zeros_like(known)), log_scales)


def test_empty_pass_of_one_point_is_left_out() -> None:
    """A map of one latent has no second pass: nothing is put into the string for it."""
    parts = parts_of((6,), 2, 1, 1)
    assert [p.take(torch.zeros(1, 6, 1, 1)).shape[1] for p in parts] == [6, 0]
    assert StringEncoder().n_symbols == 0


def test_geometry_made_while_coding_serves_training() -> None:
    plane.cache_clear()
    parts_of.cache_clear()
    with torch.inference_mode():
        where, parts = plane(5, 7), parts_of((6,), 2, 5, 7)
    assert not where.rings[3].index.is_inference()
    assert parts[1].local is not None and not parts[1].local.is_inference()
