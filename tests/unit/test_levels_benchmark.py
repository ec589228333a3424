"""`benchmarks.levels`: subsets of split points against the best single one."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from points import rate_point, to_frame

from benchmarks.levels import compared, draw, subsets


def rows() -> pd.DataFrame:
    """One level is good at low rates, the other at high ones; both together cost half as much again at any accuracy."""
    made = []
    for k in range(6):
        value = 0.1 + 0.05 * k
        coarse, fine = 0.01 * 2**k * (1 if k < 3 else 4), 0.01 * 2**k * (1 if k >= 3 else 4)
        for split, bpp in (("fine", fine), ("coarse", coarse), ("fine+coarse", 1.5 * min(fine, coarse))):
            params = json.dumps({"bits": k})
            made.append(
                rate_point(split=split, codec="uniform", params=params, bpp=bpp, value=value, point=f"{split}{k}")
            )
    for split in ("fine", "coarse", "fine+coarse"):
        made.append(
            rate_point(split=split, kind="ceiling", codec="uncoded", params="{}", bpp=9.0, value=0.5, point=split)
        )
    return to_frame(made).assign(folder="runs")


def test_subsets_are_compared_with_the_best_single_level_at_each_accuracy() -> None:
    found = {r["levels"]: r for r in compared(rows())}
    assert list(found) == ["fine", "coarse", "fine+coarse"]
    assert found["fine+coarse"]["extra_rate_percent"] == pytest.approx(50, abs=1)
    assert found["fine"]["extra_rate_percent"] > 20 and found["coarse"]["extra_rate_percent"] > 20
    assert {r["uncoded"] for r in found.values()} == {0.5}


def test_the_figure_names_every_subset() -> None:
    figure = draw(rows())
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["coarse", "fine", "fine+coarse"]
    assert len(figure.axes) == 1 and len(subsets("abcd")) == 15
