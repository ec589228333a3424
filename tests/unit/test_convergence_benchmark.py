"""benchmarks/convergence.py: gains found by doubling, ways to train a sweep, and a codec moved along lmbda."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.convergence import Trained, doublings, figure, frame, move, ways
from fcbench.core import registry
from fcbench.core.features import FeatureSpec
from fcbench.reports import style
from fcbench.testing.maps import statistics


def trained(budget: int, loss: float, way: str = "independent", lmbda: float = 2.0, bits: float = 0.5) -> Trained:
    curve = json.dumps([[32, 1.0, loss + 0.1, bits], [budget, 4.0, loss, bits]])
    return Trained(
        "c", lmbda, way, budget, budget, budget / 100, "steps", loss, bits, (loss - bits) / lmbda, 9.5, 40.0, curve
    )


def test_a_doubling_is_counted_in_bits_at_equal_distortion(tmp_path: Path) -> None:
    rows = frame([trained(300, 0.70), trained(600, 0.65)])
    assert doublings(rows).rows == [["c", "2", "300", "0.7000", "0.5000", "9.5", "9.5", "40"]]
    assert style.save(figure(rows), tmp_path / "a.png").stat().st_size > 10_000


def test_ways_are_set_against_independent_trainings() -> None:
    lmbdas, bits = (0.3, 0.8, 2.0, 6.0), (0.1, 0.2, 0.4, 0.8)
    own = [trained(300, 2 * b, lmbda=v, bits=b) for v, b in zip(lmbdas, bits)]
    half = [trained(60, b / 2 + b, "continued", v, b / 2) for v, b in zip(lmbdas, bits)]  # same distortion
    assert ways(frame([*own, *half])).rows == [
        ["c", "independent", "1200", "12", "1.00", "+0.0"],
        ["c", "continued", "240", "2", "0.20", "-50.0"],
    ]


def test_a_moved_hyperprior_predicts_its_latents_as_before() -> None:
    """Latents, means and scales grow by the same factor; z stays."""
    x, spec = torch.randn(8, 6, 8, 8), FeatureSpec("s", 6, 16)
    codec: Any = registry.get("codec", "hyperprior").build([spec], {"s": statistics(x)}, {"lmbda": 1.0})
    codec.prepare([x])
    coder, factor = codec.map_coders[0], 2.0  # of lmbda 4
    torch.nn.init.normal_(coder.h_a.residual.layers[-1].weight, std=0.1)
    with torch.no_grad():
        z, y = coder.analyze_whole(x)
        means, log_scales = coder.net.begin(z, (4, 4))
        move(codec, 1.0, 4.0)
        z_after, y_after = coder.analyze_whole(x)
        means_after, log_scales_after = coder.net.begin(z_after, (4, 4))
        restored = coder.restore(y_after, (8, 8))
    assert torch.allclose(z_after, z, atol=1e-4) and torch.allclose(y_after, factor * y, atol=1e-4)
    assert torch.allclose(means_after, factor * means, atol=1e-4)
    assert (log_scales_after - log_scales).numpy() == pytest.approx(0.6931, abs=1e-3)
    assert restored.shape == x.shape
