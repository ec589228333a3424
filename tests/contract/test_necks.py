"""The contract of necks, and the stricter rules of this house, tried on every built-in neck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.testing.necks import SPECS, NeckContract, build, maps_of

NECKS = registry.names("neck")


class HouseRules(NeckContract):
    """Positions that are told apart, message texts."""

    def test_it_says_what_it_is(self, name: str) -> None:
        assert registry.summary("neck", name)

    def test_positions_are_told_apart(self, name: str) -> None:
        neck = build(name, (4, 4), (2, 2))
        flat = {"fine": torch.ones(1, 6, 4, 4), "coarse": torch.ones(1, 5, 2, 2)}
        cells: Tensor = neck(flat)[0].flatten(1)
        assert torch.pdist(cells.T).min() > 0

    def test_wrong_maps_are_refused(self, name: str) -> None:
        neck = build(name, (8, 8), (4, 4))
        maps = maps_of((8, 8), (4, 4))
        with pytest.raises(FcbenchError, match="needs the map 'coarse'"):
            neck({"fine": maps["fine"]})
        with pytest.raises(FcbenchError, match=r"\(6, 9, 8\).*\(6, 8, 8\)"):
            neck({**maps, "fine": torch.zeros(1, 6, 9, 8)})
        with pytest.raises(FcbenchError, match=r"\(4, 4, 4\).*\(5, 4, 4\)"):
            neck({**maps, "coarse": torch.zeros(1, 4, 4, 4)})

    def test_wrong_builds_are_refused(self, name: str) -> None:
        plugin = registry.get("neck", name)
        shapes = {"fine": (8, 8), "coarse": (4, 4)}
        with pytest.raises(FcbenchError, match="no split point"):
            plugin.build((), shapes, 32)
        with pytest.raises(FcbenchError, match="no shape for .'coarse'."):
            plugin.build(SPECS, {"fine": (8, 8)}, 32)
        with pytest.raises(FcbenchError, match="width must be at least 1, got 0"):
            plugin.build(SPECS, shapes, 0)


for _name in NECKS:
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (HouseRules,), {"plugin": _name})


def test_attention_refuses_a_width_it_cannot_split() -> None:
    with pytest.raises(FcbenchError, match="multiple of 32"):
        registry.get("neck", "neck_2L").build(SPECS[:1], {"fine": (8, 8)}, 40)


def test_capacity_grows_with_the_name() -> None:
    sizes = [
        sum(p.numel() for p in build(name, (8, 8), (4, 4)).parameters())
        for name in ("linear", "neck_2L", "neck_4L", "neck_6L")
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[2] - sizes[1] == sizes[3] - sizes[2]  # two layers each


def test_linear_is_affine() -> None:
    neck = build("linear", (8, 8), (4, 4))
    a, b = maps_of((8, 8), (4, 4)), maps_of((8, 8), (4, 4))
    b = {k: m.flip(0) for k, m in b.items()}
    half = {k: (a[k] + b[k]) / 2 for k in a}
    torch.testing.assert_close(neck(half), (neck(a) + neck(b)) / 2)
