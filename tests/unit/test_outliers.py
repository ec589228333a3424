"""Planted outliers: a few values at 1e4 standard deviations cost neither correctness nor the other channels."""

from __future__ import annotations

import pytest

from benchmarks.outliers import code, features
from fcbench.core import registry
from fcbench.core.errors import FcbenchError


def test_what_is_planted() -> None:
    clean, planted = features(False), features(True)
    moved = ((planted - clean).abs() > 0).flatten(2).any(2).any(0)
    assert moved.nonzero().flatten().tolist() == [3, 10]
    assert float((planted / clean.std((0, 2, 3))[:, None, None]).abs().max()) > 9e3


@pytest.mark.parametrize("name", registry.names("codec"))
def test_outliers_cost_neither_correctness_nor_the_other_channels(name: str) -> None:
    try:
        registry.get("codec", name).versions()
    except FcbenchError as error:
        pytest.skip(str(error))
    clean, planted = code(name, False, 10), code(name, True, 10)  # raises where the decoder is out of step
    assert planted.n_bytes < 1.5 * clean.n_bytes + 64
    assert planted.error < 2 * clean.error + 0.02
