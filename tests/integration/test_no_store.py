"""Runs that store no features: the rows of a run that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from click.testing import Result
from tiny import TIMES

from fcbench.results import table

OPTIONS = ("--task", "segmentation", "--task", "captioning", "--no-store")


def test_a_run_without_stored_features_has_the_same_rows(
    tiny: Callable[..., Result], finished: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plan = tiny(tmp_path / "out", *OPTIONS, "--cache-dir", cache, "--plan")
    assert "(0.0 MB of them features)" in plan.output and "features are not stored" in plan.output
    result = tiny(tmp_path / "out", *OPTIONS, "--cache-dir", cache)
    assert result.exit_code == 0, result.output
    found, expected = (table.load(p).drop(columns=TIMES) for p in (tmp_path / "out", finished))
    pd.testing.assert_frame_equal(expected, found, check_exact=True)
    assert not list((cache / "features").rglob("*.npy"))
