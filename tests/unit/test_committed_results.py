"""Committed results hold what they claim, as far as they keep it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fcbench
from fcbench.analysis.verify import verify
from fcbench.core.cache import Cache
from fcbench.measure import kept
from fcbench.results import signing, table
from fcbench.results.checks import Checks
from fcbench.results.samples import PACKED

RESULTS = Path(fcbench.__file__).resolve().parents[1] / "results"
FOLDERS = sorted(file.parent.relative_to(RESULTS).as_posix() for file in RESULTS.rglob(table.RATES))

pytestmark = pytest.mark.skipif(not RESULTS.exists(), reason="needs the source tree")


@pytest.mark.parametrize("name", FOLDERS)
def test_rows_add_up_and_samples_give_their_values(name: str) -> None:
    """Intervals take a minute: `fcbench verify FOLDER` draws them again."""
    folder = RESULTS / name
    checks, n_rows = verify(folder, with_intervals=False), len(table.load(folder))
    if (folder / PACKED).exists():
        assert not checks.faults and not checks.left and checks.done["values"] == n_rows
    else:  # older ones name no run
        assert {fault.file for fault in checks.faults} <= {"provenance.json"}
        assert checks.left == {"values and intervals (no samples kept)": n_rows}


def test_intervals_are_drawn_again() -> None:
    checks = verify(RESULTS / "universality_published" / "padding")
    assert not checks.faults and checks.done["intervals"] == checks.done["values"] == 12


def test_kept_streams_decode_to_what_their_rows_say(tmp_path: Path) -> None:
    folder, checks = RESULTS / "trust" / "kept", Checks()
    kept.check(folder, Cache(tmp_path), checks, lambda done, total: None, trust=True)
    assert not checks.faults and checks.done["streams decoded"] == checks.done["streams"] == 13
    assert ", unchanged since, " in signing.check(folder, checks) and not checks.faults
