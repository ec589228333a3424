"""Anchors through the whole run: the image coded instead of features, the task's own output coded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from refusals import refused

from fcbench.results import table

Tiny = Callable[..., Result]
TASKS = ("segmentation", "depth", "pose", "captioning", "classification")


def test_remote_inference_and_label_coding(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    codecs = ("--codec", "image:jpeg", "--codec", "label", "--codec", "jpegxl")
    tasks = [t for n in TASKS for t in ("--task", n)]
    result = tiny(out, *codecs, *tasks, "--keep-streams")
    assert result.exit_code == 0, result.output
    df = table.load(out)
    df = df[df.primary]
    assert set(df.kind) == {"ceiling", "floor", "coded", "remote", "label"}
    ceiling = df[df.kind == "ceiling"].set_index("task").value
    labels = df[df.kind == "label"].set_index("task")
    assert (labels.value == ceiling[labels.index]).all()  # what the head made of them
    assert (labels.n_bytes > 0).all()
    remote = df[(df.kind == "remote") & (df.task == "depth")]
    assert len(remote) >= 5 and remote.n_bytes.is_monotonic_increasing
    assert remote.feature_mse.iloc[0] > remote.feature_mse.iloc[-1] > 0
    sizes = {p.stat().st_size for p in (out / "streams").glob("*.fcb")}
    coded = df[df.kind.isin(["coded", "remote", "label"])]
    assert set(coded.n_bytes) == sizes
    assert all("imagecodecs" in json.loads(v) for v in remote.versions)
    assert coded.bpp_estimated.isna().all()  # none of them has a model


@pytest.mark.parametrize(("codec", "near"), [("image:jpg", "jpeg"), ("jpegxx", "jpegxl"), ("lable", "label")])
def test_unknown_anchors_name_the_nearest(tiny: Tiny, tmp_path: Path, codec: str, near: str) -> None:
    assert f"'{near}'" in refused(tiny(tmp_path / "out", "--codec", codec))


def test_codecs_whose_programs_are_missing_are_skipped_with_the_reason(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    out = tmp_path / "out"
    result = tiny(out, "--codec", "vvc", "--codec", "zfp", "--task", "pose")
    assert result.exit_code == 0, result.output
    assert "skipped vvc: vvencapp not found on the PATH" in result.output
    assert set(table.load(out).codec) == {"uncoded", "mean", "zfp"}
    alone = refused(tiny(tmp_path / "alone", "--codec", "vvc"))
    assert "vvencapp not found" in alone


def test_a_point_that_fails_for_want_of_a_program_is_a_failed_row(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcbench.measure.suite.Suite.missing", lambda suite: {})
    monkeypatch.setenv("PATH", "")
    out = tmp_path / "out"
    result = tiny(out, "--codec", "vvc", "--codec", "zfp", "--task", "pose")
    assert "6 jobs failed" in refused(result)
    df = table.load(out)
    assert df[df.codec == "vvc"].status.str.contains("vvencapp").all()
    assert (df[df.codec == "zfp"].status == "ok").all()
