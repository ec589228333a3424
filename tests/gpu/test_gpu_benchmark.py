"""``python -m benchmarks.gpu`` runs, on the CPU too, and keeps its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.gpu import main, stages


def test_tiny_sizes_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    result = CliRunner().invoke(main, ["--device", "cpu", "--quick", "-o", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert {f["group"] for f in figures} == {"equality", "encoders", "training"}
    assert all(f["value"] == 0 for f in figures if f["group"] == "equality")
    assert all(f["value"] > 0 for f in figures if f["group"] != "equality")
    assert "sam2:tiny, bfloat16" in result.output and "random weights" in result.output


def test_stages_of_a_run_are_summed_by_kind() -> None:
    log = """[1/4] sam2_nano: features of train (1.0 s; about 9 s left)
left out: nothing
[2/4] sam2_nano: neck_2L and head, depth (4.3 s; about 5 s left)
[3/4] sam2_nano: neck_2L and adapter to nano_pose, pose (1.5 s; about 5 s left)
[4/4] sam2_nano: uniform(bits=2): 0.4 bpp, rmse 1.597 (2.0 s; about 0 s left)
"""
    assert stages(log) == {"features": 1.0, "readouts": 5.8, "points with their codecs": 2.0}
