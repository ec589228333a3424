"""Contract of necks. Three lines test one, built-in, installed or a file::

from fcbench.testing.necks import NeckContract
class TestMine(NeckContract):
    plugin = "my_neck.py"
"""

import pytest
import torch
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.features import FeatureSpec
from fcbench.testing.contract import Contract

SPECS = (FeatureSpec("fine", 6, 8), FeatureSpec("coarse", 5, 16))
GRIDS = [((8, 8), (4, 4)), ((7, 5), (4, 3)), ((1, 1), (1, 1))]
WIDTH = 32

Grid = tuple[int, int]


def build(name: str, fine: Grid, coarse: Grid) -> nn.Module:
    """A neck of two maps, initialized with the same seed."""
    torch.manual_seed(0)
    return registry.get("neck", name).build(SPECS, {"fine": fine, "coarse": coarse}, WIDTH)


def maps_of(fine: Grid, coarse: Grid, n: int = 3) -> dict[str, Tensor]:
    """A batch of both maps."""
    generator = torch.Generator().manual_seed(1)
    draw = {s.name: (n, s.channels, *grid) for s, grid in zip(SPECS, (fine, coarse))}
    return {name: torch.randn(*shape, generator=generator) for name, shape in draw.items()}


class NeckContract(Contract):
    """Requirements for every neck. Subclass it in a test module and set `plugin`."""

    kind = "neck"

    @pytest.mark.parametrize("fine, coarse", GRIDS)
    def test_output_has_the_finest_grid(self, name: str, fine: Grid, coarse: Grid) -> None:
        out = build(name, fine, coarse)(maps_of(fine, coarse))
        assert out.shape == (3, WIDTH, *fine)
        assert out.dtype == torch.float32
        assert torch.isfinite(out).all()

    def test_gradients_reach_every_parameter_and_every_map(self, name: str) -> None:
        neck = build(name, (8, 8), (4, 4))
        maps = {k: m.requires_grad_() for k, m in maps_of((8, 8), (4, 4)).items()}
        weight = torch.randn(WIDTH, 8, 8, generator=torch.Generator().manual_seed(2))
        (neck(maps) * weight).sum().backward()
        for key, value in [*neck.named_parameters(), *maps.items()]:
            assert value.grad is not None and value.grad.abs().sum() > 0, key

    def test_samples_of_a_batch_do_not_mix(self, name: str) -> None:
        neck = build(name, (8, 8), (4, 4)).eval()
        maps = maps_of((8, 8), (4, 4))
        one = neck({k: m[1:2] for k, m in maps.items()})
        torch.testing.assert_close(neck(maps)[1:2], one, rtol=1e-4, atol=1e-5)

    def test_same_seed_same_neck_and_state_reloads(self, name: str) -> None:
        maps = maps_of((8, 8), (4, 4))
        first, second = (build(name, (8, 8), (4, 4)).eval() for _ in range(2))
        assert torch.equal(first(maps), second(maps))
        with torch.no_grad():
            for p in first.parameters():
                p.add_(0.1)
        assert not torch.equal(first(maps), second(maps))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(maps), second(maps))
