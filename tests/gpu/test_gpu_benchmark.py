"""``python -m benchmarks.gpu`` runs, on the CPU too, and keeps its figures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.gpu import PARTS, Figure, followed, main, stages


def test_tiny_sizes_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    result = CliRunner().invoke(main, ["--device", "cpu", "--quick", "-o", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert {f["group"] for f in figures} == {"equality", "encoders", "training"}
    assert all(f["value"] == 0 for f in figures if f["group"] == "equality")
    assert all(f["value"] > 0 for f in figures if f["group"] != "equality")
    assert "sam2:tiny, bfloat16" in result.output and "random weights" in result.output


def test_a_run_that_is_ended_states_what_was_done() -> None:
    lines = "[1/4] sam2_nano: features of train (1.0 s; about 9 s left)", "Error: 2 jobs failed, first: no imagecodecs"
    talk = f"import sys, time; print({lines[0]!r}, {lines[1]!r}, sep=chr(10), file=sys.stderr, flush=True)"
    code, log = followed([sys.executable, "-c", f"{talk}; sys.exit(1)"], None)
    assert code == 1 and log.splitlines() == list(lines)
    began = time.monotonic()
    code, log = followed([sys.executable, "-c", f"{talk}; time.sleep(60)"], 3)
    assert code != 0 and time.monotonic() - began < 30 and stages(log)["features"] == 1.0


def test_a_part_that_lacks_a_package_is_said_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: Any) -> None:
        raise ImportError("No module named 'imagecodecs'")

    def figure(device: Any, quick: bool, say: Any) -> None:
        say(Figure("training", "a thing", "cpu", 1.0, "s"))

    monkeypatch.setitem(PARTS, "equality", lacking)
    monkeypatch.setitem(PARTS, "training", figure)
    result = CliRunner().invoke(main, "--device cpu --part equality --part training".split())
    assert result.exit_code == 1
    assert "equality: left out from here: No module named 'imagecodecs'" in result.output
    assert "a thing" in result.output


def test_stages_of_a_run_are_summed_by_kind() -> None:
    log = """[1/4] sam2_nano: features of train (1.0 s; about 9 s left)
left out: nothing
[2/4] sam2_nano: neck_2L and head, depth (4.3 s; about 5 s left)
[3/4] sam2_nano: neck_2L and adapter to nano_pose, pose (1.5 s; about 5 s left)
[4/4] sam2_nano: uniform(bits=2): 0.4 bpp, rmse 1.597 (2.0 s; about 0 s left)
"""
    assert stages(log) == {"features": 1.0, "readouts": 5.8, "points with their codecs": 2.0}
