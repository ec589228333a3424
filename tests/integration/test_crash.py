"""A run that is killed, or loses its disk, at any write, rename or fsync gives the rows of one left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def crash(*options: str) -> str:
    """Output of the tool, which must find no difference."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.crash", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_that_was_disturbed_in_any_way_ends_as_one_left_alone() -> None:
    assert "6 trials, 0 differed" in crash("--kills", "6")


@pytest.mark.slow
def test_no_moment_matters() -> None:
    assert "60 trials, 0 differed" in crash("--kills", "60", "--seed", "1")
