"""`fcbench verify`: a run's folder passes, and whatever is changed in it is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from fcbench.analysis.verify import verify
from fcbench.results.samples import SAMPLES


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, as of a clean checkout."""
    shutil.copytree(finished, tmp_path / "run")
    _edit(tmp_path / "run", lambda text: text.replace("-dirty", ""))
    return tmp_path / "run"


def _edit(folder: Path, change: Callable[[str], str]) -> None:
    file = folder / "rates.csv"
    file.write_text(change(file.read_text()))


def _set(folder: Path, column: str, value: object) -> str:
    """Change a column of the first coded point; returns the point's key."""
    rows = pd.read_csv(folder / "rates.csv", keep_default_na=False, dtype=str)
    point = str(rows.loc[rows["kind"] == "coded", "point"].iloc[0])
    rows.loc[rows["point"] == point, column] = str(value)
    rows.to_csv(folder / "rates.csv", index=False)
    return point


def test_a_finished_run_passes(fcbench: Callable[..., Result], folder: Path) -> None:
    assert list((folder / "streams").glob("*.fcb"))
    result = fcbench("verify", str(folder))
    assert result.exit_code == 0 and result.output == f"{folder}: holds what it claims\n"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("value", 0.123456, "its samples give"),
        ("ci_high", 0.0, "its interval"),
        ("bpp", 1e-3, "its"),
        ("run", "another", "are of run 'another'"),
        ("commit", "abc-dirty", "differed from its commit"),
        ("status", "boom", "failed: boom"),
        ("checkpoint_sha256", "ab", "not the checkpoint of point"),
        ("n_samples", 9, "8 samples, but its rows say 9"),
    ],
)
def test_a_changed_cell_is_found(folder: Path, column: str, value: object, words: str) -> None:
    _set(folder, column, value)
    assert any(words in fault for fault in verify(folder))


def test_missing_and_changed_files_are_found(fcbench: Callable[..., Result], folder: Path) -> None:
    first, *_ = sorted((folder / SAMPLES).glob("*.parquet"))
    first.unlink()
    short, odd, *_ = sorted((folder / "streams").glob("*.fcb"))
    short.write_bytes(short.read_bytes()[:-1])
    odd.rename(odd.with_stem("0" * 20))
    (folder / "provenance.json").unlink()
    faults = verify(folder)
    for words in (
        f"point {first.stem}: no samples",
        f"{short}: ",
        "belongs to no row",
        "provenance.json does not hold",
    ):
        assert any(words in fault for fault in faults), words
    result = fcbench("verify", str(folder))
    assert result.exit_code == 1 and "1 of 1 folders do not hold" in result.output
    assert f"{short}, record " in result.output
