"""Contract of every neck: shapes, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec

SPECS = (FeatureSpec("fine", 6, 8), FeatureSpec("coarse", 5, 16))
GRIDS = [((8, 8), (4, 4)), ((7, 5), (4, 3)), ((1, 1), (1, 1))]
NECKS = registry.names("neck")


def build(name: str, fine: tuple[int, int], coarse: tuple[int, int]):
    torch.manual_seed(0)
    shapes = {"fine": fine, "coarse": coarse}
    return registry.get("neck", name).build(SPECS, shapes, 32)


def maps_of(fine: tuple[int, int], coarse: tuple[int, int], n: int = 3):
    gen = torch.Generator().manual_seed(1)
    return {"fine": torch.randn(n, 6, *fine, generator=gen), "coarse": torch.randn(n, 5, *coarse, generator=gen)}


@pytest.mark.parametrize("name", NECKS)
@pytest.mark.parametrize("fine, coarse", GRIDS)
def test_output_has_the_finest_grid(name, fine, coarse):
    out = build(name, fine, coarse)(maps_of(fine, coarse))
    assert out.shape == (3, 32, *fine)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", NECKS)
def test_gradients_reach_every_parameter_and_every_map(name):
    neck = build(name, (8, 8), (4, 4))
    maps = {k: m.requires_grad_() for k, m in maps_of((8, 8), (4, 4)).items()}
    weight = torch.randn(32, 8, 8, generator=torch.Generator().manual_seed(2))
    (neck(maps) * weight).sum().backward()
    for key, value in [*neck.named_parameters(), *maps.items()]:
        assert value.grad is not None and value.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NECKS)
def test_samples_of_a_batch_do_not_mix(name):
    neck = build(name, (8, 8), (4, 4)).eval()
    maps = maps_of((8, 8), (4, 4))
    one = neck({k: m[1:2] for k, m in maps.items()})
    torch.testing.assert_close(neck(maps)[1:2], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NECKS)
def test_same_seed_same_neck_and_state_reloads(name):
    maps = maps_of((8, 8), (4, 4))
    first, second = build(name, (8, 8), (4, 4)), build(name, (8, 8), (4, 4))
    assert torch.equal(first(maps), second(maps))
    with torch.no_grad():
        for p in first.parameters():
            p.add_(0.1)
    assert not torch.equal(first(maps), second(maps))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(maps), second(maps))


@pytest.mark.parametrize("name", NECKS)
def test_positions_are_told_apart(name):
    neck = build(name, (4, 4), (2, 2))
    flat = {"fine": torch.ones(1, 6, 4, 4), "coarse": torch.ones(1, 5, 2, 2)}
    cells: Tensor = neck(flat)[0].flatten(1)
    assert torch.pdist(cells.T).min() > 0


@pytest.mark.parametrize("name", NECKS)
def test_wrong_maps_are_refused(name):
    neck = build(name, (8, 8), (4, 4))
    maps = maps_of((8, 8), (4, 4))
    with pytest.raises(FcbenchError, match="needs the map 'coarse'"):
        neck({"fine": maps["fine"]})
    with pytest.raises(FcbenchError, match=r"\(6, 9, 8\).*\(6, 8, 8\)"):
        neck({**maps, "fine": torch.zeros(1, 6, 9, 8)})
    with pytest.raises(FcbenchError, match=r"\(4, 4, 4\).*\(5, 4, 4\)"):
        neck({**maps, "coarse": torch.zeros(1, 4, 4, 4)})


@pytest.mark.parametrize("name", NECKS)
def test_wrong_builds_are_refused(name):
    plugin = registry.get("neck", name)
    shapes = {"fine": (8, 8), "coarse": (4, 4)}
    with pytest.raises(FcbenchError, match="no split point"):
        plugin.build((), shapes, 32)
    with pytest.raises(FcbenchError, match="no shape for .'coarse'."):
        plugin.build(SPECS, {"fine": (8, 8)}, 32)
    with pytest.raises(FcbenchError, match="width .* got 0"):
        plugin.build(SPECS, shapes, 0)


def test_attention_refuses_a_width_it_cannot_split():
    with pytest.raises(FcbenchError, match="multiple of 32"):
        registry.get("neck", "neck_2L").build(SPECS[:1], {"fine": (8, 8)}, 40)


def test_capacity_grows_with_the_name():
    sizes = [
        sum(p.numel() for p in build(name, (8, 8), (4, 4)).parameters())
        for name in ("linear", "neck_2L", "neck_4L", "neck_6L")
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[2] - sizes[1] == sizes[3] - sizes[2]  # two layers each


def test_linear_is_affine():
    neck = build("linear", (8, 8), (4, 4))
    a, b = maps_of((8, 8), (4, 4)), maps_of((8, 8), (4, 4))
    b = {k: m.flip(0) for k, m in b.items()}
    half = {k: (a[k] + b[k]) / 2 for k in a}
    torch.testing.assert_close(neck(half), (neck(a) + neck(b)) / 2)


def test_every_neck_says_what_it_is():
    for name in NECKS:
        assert registry.summary("neck", name)
