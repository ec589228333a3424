"""A thousand hostile inputs of ``python -m benchmarks.fuzz``, and every one that ever failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).with_name("cases")


def fuzz(*options: str) -> str:
    """Output of the tool, which must find no failure."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits the memory of processes")
def test_a_thousand_hostile_inputs_are_refused_or_change_nothing(tmp_path: Path) -> None:
    out = fuzz("--cases", "1000", "--minutes", "4", "--seed", "0", "--keep", str(tmp_path), "--out", str(tmp_path))
    assert "1000 cases" in out and "refused" in out
    rows = (tmp_path / "fuzz.csv").read_text().splitlines()
    assert sum(int(row.split(",")[2]) for row in rows[1:]) == 1000


def test_what_failed_once_fails_no_more() -> None:
    files = sorted(CASES.glob("*.json"))
    out = fuzz("--replay", str(CASES))
    assert len(out.splitlines()) == len(files) > 0
