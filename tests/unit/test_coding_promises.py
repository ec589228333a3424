"""What strings of learned codecs rest on, where no test on one machine would miss it: seen from inside."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fcbench.codecs.shared.gaussian import MEAN_GRID
from fcbench.codecs.shared.transforms import TAIL_MASS, IntegerBottleneck
from fcbench.coders.tables import MAX_SYMBOL
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.testing.codecs import make, middle
from fcbench.testing.maps import ONE, batches, features, statistics


def frozen(name: str) -> Any:
    return make(name, ONE, middle(name))


@pytest.mark.parametrize("name", ["factorized", "hyperprior", "elic", "strata"])
def test_networks_run_on_one_thread_without_gradient_and_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, x, seen = frozen(name), features(ONE, (5, 7)), []
    (coder,) = codec.map_coders
    for method in ("analyze", "synthesize"):

        def watched(*args: Any, real: Any = getattr(coder, method)) -> Any:
            seen.append((torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            return real(*args)

        monkeypatch.setattr(coder, method, watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.autocast("cpu"):
            codec.decode(codec.encode(x).payload, x.shapes)
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, False, False)] * 2


@pytest.mark.parametrize("name", ["hyperprior", "checkerboard"])
def test_means_lie_on_their_grid(name: str) -> None:
    (coder,) = frozen(name).map_coders
    latents = [torch.round(t) for t in coder.analyze(torch.randn(1, 12, 6, 6))]
    for stage in range(1, len(coder.stages)):
        means = coder.code(stage, (6, 6), latents[:stage]).means
        assert means.abs().max() > 0 and torch.equal(means * MEAN_GRID, torch.round(means * MEAN_GRID))


def test_bits_follow_the_network_while_no_tables_are_made() -> None:
    (x,) = batches(ONE, 2, (8, 8), seed=1)
    codec: Any = registry.get("codec", "hyperprior").build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
    codec.prepare([x])
    codec.eval()
    with torch.no_grad():
        before = codec.estimate_bits({"stage3": x})
        for p in codec.map_coders[0].net.parameters():
            p.add_(0.3)
        assert not torch.equal(codec.estimate_bits({"stage3": x}), before)


def test_tables_are_as_wide_as_the_density() -> None:
    """At most about the tail's mass is left to the escape, however wide the latents."""
    std = 40.0
    bottleneck = IntegerBottleneck(2).eval()
    bottleneck.match(std * torch.randn(8, 2, 16, 16, generator=torch.Generator().manual_seed(0)))
    _, length, offset = bottleneck.make_tables()
    reach = std * math.sqrt(3) / math.pi * math.log(2 / TAIL_MASS)  # of a logistic density
    assert (-offset).tolist() == pytest.approx([reach] * 2, rel=0.05)
    assert length.tolist() == pytest.approx([2 * reach] * 2, rel=0.05)


@pytest.mark.parametrize("name", ["factorized", "hyperprior", "strata"])
def test_latents_beyond_the_symbols_are_refused(name: str) -> None:
    x = Features({"stage3": features(ONE, (5, 7)).maps["stage3"] * MAX_SYMBOL * 1e3})
    with pytest.raises(FcbenchError, match=r"NaN or 2\*\*24 or more"):
        frozen(name).encode(x)
