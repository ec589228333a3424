"""Encoders run no further than to the deepest split point, and their maps are those of the whole network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from fcbench.core.features import GLOBAL
from fcbench.encoders.shared.stopping import makers, outputs
from fcbench.features.encoding import build_encoder
from fcbench.measure.complexity import macs
from fcbench.testing.encoders import images

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050", "tf_efficientnet_lite0"]
)
def test_what_comes_after_the_split_point_does_not_run(name: str) -> None:
    encoder = build_encoder(f"timm:{name}", "random", CPU)
    x = images(1, (64, 64))
    places = [n for n in encoder.specs if not n.endswith(GLOBAL)]
    whole, spent = encoder(x, list(encoder.specs)).maps, list[int]()
    for place in places:
        names = [n for n in (place, place + GLOBAL) if n in encoder.specs]
        spent.append(macs(lambda names=names: encoder(x, names)))  # type: ignore[misc]
        assert all(torch.equal(m, whole[n]) for n, m in encoder(x, names).maps.items())
    assert spent == sorted(set(spent)), "the deeper the split point, the more is computed"


class Looped(nn.Module):
    """Runs one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [self.stem(x)]
        for _ in range(2):
            found.append(self.layer(found[-1]))
        return found


def test_a_network_whose_maps_have_no_makers_of_their_own_runs_to_its_end() -> None:
    network, x = Looped(), torch.ones(1, 2)
    run: Callable[[], Sequence[Tensor]] = lambda: network(x)  # noqa: E731
    assert makers(network, run) == [] and makers(network, lambda: [run()[0] + 1]) == []
    assert len(outputs([], run)) == 3
    first = makers(network, lambda: run()[:1])
    assert first == [network.stem] and [torch.equal(m, run()[0]) for m in outputs(first, run)] == [True]
    assert not network.stem._forward_hooks
