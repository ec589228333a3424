"""benchmarks/convergence.py: gains found by doubling, and ways to train a sweep."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.convergence import Trained, doublings, figure, frame, ways
from fcbench.reports import style


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
