"""`fcbench run` from images to the picture, on tiny data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from PIL import Image
from tiny import TIMES, TINY

from fcbench.cli import plot
from fcbench.core import registry
from fcbench.encoders.shared import weights
from fcbench.encoders.shared.nano import NanoEncoder
from fcbench.measure import workshop
from fcbench.results import folder, samples
from fcbench.results import table as table_module
from fcbench.results.folder import ResultsFolder
from fcbench.transmit import container, senders
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.senders import CodecSender, Received, Sent

Tiny = Callable[..., Result]
TASKS = {"segmentation", "captioning"}


def test_rows_are_complete(finished: Path) -> None:
    df = table_module.load(finished)
    assert set(df.task) == TASKS
    assert set(df.kind) == {"coded", "ceiling", "floor"}
    assert (df.status == "ok").all()
    assert (df.weights_origin == "random(seed=0)").all()
    primary = df[df.primary]
    for (_, codec), curve in primary[primary.kind == "coded"].groupby(["task", "codec"]):
        assert len(curve) >= 5, codec
        assert curve.bpp.is_monotonic_increasing
        assert (curve.ci_low <= curve.value).all() and (curve.value <= curve.ci_high).all()
    assert not df.rate_alarm.fillna(False).any()
    assert set(df.task_stop) == {"steps"} and (df.task_done == 20).all() and (df.task_seconds > 0).all()
    trained = df[df.codec == "hyperprior"]
    assert set(trained.codec_stop) == {"steps"} and (trained.codec_seconds > 0).all()
    done = {params: n for params, n in zip(trained.params, trained.codec_done)}
    assert sorted(done.values()) == [1] * (len(done) - 1) + [4] and done['{"lmbda": 2.0}'] == 4, "the others go on"
    assert set(df[df.codec == "uniform"].codec_stop) == {""} and df.codec_gain.isna().all(), "too short to tell"
    for _, own in df.groupby("task"):
        times = own[["encoder_ms", "neck_ms", "head_ms"]].drop_duplicates()
        assert len(times) == 1 and (times > 0).all(axis=None), "measured once"
    assert df[df.kind != "coded"].peak_mb.isna().all(), "nothing is coded"


def test_rate_is_the_size_of_the_file(finished: Path) -> None:
    df = table_module.load(finished)
    sizes = {p.stat().st_size for p in (finished / "streams").glob("*.fcb")}
    coded = df[df.kind == "coded"]
    assert set(coded.n_bytes) == sizes
    row = coded.iloc[0]
    assert row.bpp == pytest.approx(8 * row.n_bytes / (8 * 128 * 128))
    assert row.bpfp == pytest.approx(8 * row.n_bytes / (8 * 8 * 8 * 128))
    assert row.bytes_per_sample == pytest.approx(row.n_bytes / 8)


def test_ends_of_the_curves(finished: Path) -> None:
    df = table_module.load(finished)
    assert (df[df.kind == "ceiling"].bpfp == 32).all()
    assert (df[df.kind == "floor"].n_bytes == 0).all()


def test_samples_give_the_values(finished: Path) -> None:
    """A row's value can be had again from the kept statistics of its samples."""
    df = table_module.load(finished)
    for point, rows in df[df.task == "segmentation"].groupby("point"):
        table = samples.load_samples(finished, str(point))
        tp, seen, real = table.stats.sum(0).reshape(3, -1)
        union = seen + real - tp
        miou = (tp[union > 0] / union[union > 0]).mean()
        assert rows[rows.metric == "miou"].value.item() == pytest.approx(miou)


def test_picture_and_provenance(finished: Path) -> None:
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    run = folder.load_provenance(finished)[0]
    assert run["suite"]["encoders"] == ["sam2_nano"] and "torch" in run["versions"]


def test_a_run_writes_its_report(tiny: Tiny, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", "--task", "segmentation", "--lambdas", "1", "--codec", "hyperprior", "--report")
    assert result.exit_code == 0 and str(tmp_path / "out" / "report.html") in result.output
    assert '"hiera_nano"' not in (tmp_path / "out" / "report.html").read_text()
    assert '"sam2_nano"' in (tmp_path / "out" / "report.html").read_text()

    found, rows = json.loads((tmp_path / "out" / folder.PICTURES).read_bytes()), table_module.load_points(
        tmp_path / "out"
    )
    point_of = {row.point: row for row in rows}
    kinds = [point_of[point["keys"]["segmentation"]].kind for point in found["points"]]
    assert kinds == ["ceiling", "floor", "coded"]
    uncoded, mean, coded = ([s["features"] for s in point["samples"]] for point in found["points"])
    assert len(set(uncoded)) == len(set(coded)) == 3 and len(set(mean)) == 1 and not set(uncoded) & set(coded)
    for point in found["points"]:
        assert (
            [s["sample"] for s in point["samples"]]
            == list(found["images"])
            == samples.load_samples(tmp_path / "out", point["keys"]["segmentation"]).ids[:3]
        )
        assert all(s["outputs"]["segmentation"]["whole"].startswith("data:image/png") for s in point["samples"])
    sent = samples.load_samples(tmp_path / "out", found["points"][2]["keys"]["segmentation"]).n_bytes
    assert [s["bytes"] for s in found["points"][2]["samples"]] == sent[:3]  # coded alone or among others


def test_second_run_repeats_nothing(tiny: Tiny, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop.Workshop, "do", _never)
    monkeypatch.setattr(plot, "draw", _never)
    result = tiny(finished, "--task", "segmentation", "--task", "captioning")
    assert result.exit_code == 0, result.output
    assert "measured 0 points; 26 were already in" in result.output


def test_second_codec_does_not_touch_the_encoder(
    tiny: Tiny, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NanoEncoder, "__call__", _never)
    result = tiny(tmp_path / "out", "--task", "segmentation", "--codec", "raw")
    assert result.exit_code == 0, result.output
    df = table_module.load(tmp_path / "out")
    coded = df[(df.kind == "coded") & df.primary]
    dtypes = [json.loads(p)["dtype"] for p in coded.params]
    ceiling = df[(df.kind == "ceiling") & df.primary].value.item()
    lossless = [d.startswith("fp32") for d in dtypes]
    assert any(lossless) and (coded.value[lossless] == ceiling).all()
    assert set(df.encoder_ms) == set(table_module.load(finished).encoder_ms), "its time is kept, too"


def _never(*_: object, **__: object) -> None:
    raise AssertionError("called")


def test_killed_run_resumes_to_the_same_rows(
    tiny: Tiny, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = ResultsFolder.append, list[int]()

    def dies(self: ResultsFolder, *args: object) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        append(self, *args)  # type: ignore[arg-type]

    options = ("--task", "segmentation", "--codec", "uniform")
    with monkeypatch.context() as patch:
        patch.setattr(ResultsFolder, "append", dies)
        stopped = tiny(tmp_path / "out", *options)
    assert stopped.exit_code == 130
    assert f"stopped: 5 points are in {tmp_path / 'out'}, features and trained models in" in stopped.output
    assert "Run the same command to resume" in stopped.output
    assert table_module.load(tmp_path / "out").point.nunique() == 5
    result = tiny(tmp_path / "out", *options)
    assert result.exit_code == 0 and "measured 2 points; 5 were already in" in result.output
    got, whole = table_module.load(tmp_path / "out"), table_module.load(finished)
    both = got.merge(whole, on=["point", "metric"])
    assert len(both) == len(got)
    pd.testing.assert_series_equal(both.value_x, both.value_y, check_names=False)
    pd.testing.assert_series_equal(both.n_bytes_x, both.n_bytes_y, check_names=False)


def test_encoder_stays_frozen(tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    before = registry.build_encoder("sam2_nano", "random", torch.device("cpu"))
    sha256 = weights.state_sha256(before.module)
    kept: list[torch.nn.Module] = []
    original = NanoEncoder.__init__

    def remember(self: NanoEncoder, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        kept.append(self.module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NanoEncoder, "__init__", remember)
        result = tiny(tmp_path / "o", "--task", "segmentation", "--lambdas", "1", "--codec", "hyperprior")
    assert result.exit_code == 0, result.output
    assert kept and {weights.state_sha256(m) for m in kept} == {sha256}


@pytest.mark.parametrize(("objective", "more"), [("task", ()), ("levels", ("--split-point", "stage3+stage4"))])
def test_objective_of_a_task_fits_a_codec_to_each(
    objective: str, more: tuple[str, ...], tiny: Tiny, tmp_path: Path
) -> None:
    result = tiny(
        tmp_path / "out",
        *more,
        "--objective",
        objective,
        "--codec",
        "hyperprior",
        "--lambdas",
        "3",
        "--task",
        "segmentation",
        "--task",
        "depth",
        "--keep-streams",
    )
    assert result.exit_code == 0, result.output
    coded = table_module.load(tmp_path / "out").query("kind == 'coded' and primary")
    assert set(coded.objective) == {objective}
    assert coded.checkpoint_sha256.nunique() == 2
    assert len(list((tmp_path / "out" / "streams").glob("*.fcb"))) == 2


def test_levels_of_one_map_are_refused_before_any_work(tiny: Tiny, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", "--objective", "levels", "--codec", "hyperprior", "--task", "depth")
    assert result.exit_code == 1
    assert "--objective levels weighs the maps of a pyramid, and stage3 is one map: give several" in result.output


def test_failed_point_is_a_row_and_the_sweep_goes_on(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--task", "segmentation", "--codec", "uniform")
    with monkeypatch.context() as patch:
        send = CodecSender.send

        def sometimes(self: CodecSender, *args: Any) -> Sent:
            if self.loaded.point.params.get("bits") == 4:
                raise RuntimeError("out of luck\nsecond line")
            return send(self, *args)

        patch.setattr(CodecSender, "send", sometimes)
        result = tiny(tmp_path / "out", *options)
    assert result.exit_code == 1 and "1 jobs failed" in result.output
    failed = table_module.load(tmp_path / "out").query("status != 'ok'")
    assert list(failed.status) == ["RuntimeError: out of luck"] and failed.value.isna().all()
    result = tiny(tmp_path / "out", *options)
    assert result.exit_code == 0 and "measured 1 points; 6 were already in" in result.output
    assert (table_module.load(tmp_path / "out").status == "ok").all()


def test_streams_hold_every_sample(finished: Path) -> None:
    for path in (finished / "streams").glob("*.fcb"):
        assert len(container.ContainerReader(path)) == 8


def test_tasks_see_the_decoded_features_and_nothing_else(
    tiny: Tiny, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded features replaced by the training mean: every sample's statistics fall to the floor's."""
    decode = senders.decode

    def flat(checkpoint: Path, path: Path, *rest: Any) -> Iterator[Received]:
        stats = load_checkpoint(checkpoint).codec.map_stats[0]  # type: ignore[attr-defined]
        for received in decode(checkpoint, path, *rest):
            yield Received({name: stats.mean.expand_as(x) for name, x in received.maps.items()})

    monkeypatch.setattr(senders, "decode", flat)
    out = tmp_path / "out"
    assert tiny(out, "--task", "segmentation", "--codec", "uniform").exit_code == 0, "run"
    df, whole = table_module.load(out), table_module.load(finished)
    floor = df[df.kind == "floor"].point.iloc[0]
    expected = samples.load_samples(out, floor).stats
    for point in df[df.kind == "coded"].point.unique():
        assert (samples.load_samples(out, point).stats == expected).all()
        intact = samples.load_samples(finished, point).stats
        assert (intact != expected).any()
    assert whole.point.isin(df.point).any()


def test_progress_for_machines(tiny: Tiny, tmp_path: Path) -> None:
    """Every line of standard output is a JSON object; together they tell all that was measured."""
    result = tiny(tmp_path / "out", "--task", "segmentation", "--codec", "uniform", "--json-lines")
    assert result.exit_code == 0, result.output
    plan, *events, end = [json.loads(line) for line in result.stdout.splitlines()]
    stages = [e for e in events if e["event"] == "stage"]
    assert plan["event"] == "plan" and {e["key"] for e in stages} == set(plan["stages"])
    assert [e["n_done"] for e in stages] == list(range(1, len(stages) + 1)) and stages[-1]["left_s"] == 0
    df = table_module.load(tmp_path / "out").query("primary")
    points = [e for e in events if e["event"] == "point"]
    assert plan["n_points"] == points[-1]["n_measured"] == end["n_measured"] == len(df) == len(points)
    assert [e["y"] for e in points] == pytest.approx(list(df.value))
    assert end["event"] == "end" and end["failures"] == []


@pytest.mark.slow
def test_two_processes_share_an_empty_cache(tmp_path: Path) -> None:
    options = *TINY, "--encoder", "sam2_nano", "--task", "depth", "--codec", "factorized"
    options += "--cache-dir", str(tmp_path / "cache"), "--out"
    command = [sys.executable, "-m", "fcbench", *options]
    running = [subprocess.Popen([*command, str(tmp_path / out)], stdout=subprocess.DEVNULL) for out in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    columns = ["kind", "codec", "params", "metric", "value", "bpfp", "feature_mse", "checkpoint_sha256"]
    a, b = (table_module.load(tmp_path / out)[columns].astype(str) for out in "ab")
    assert a.equals(b)
    assert not list((tmp_path / "cache" / "models").glob("*.resume*"))
    recorded = json.loads((tmp_path / "a" / "provenance.json").read_text())["runs"][0]["command"]
    assert recorded[:2] == ["fcbench", "run"], "by python -m fcbench"


@pytest.mark.slow
def test_coding_workers_change_nothing_but_time(tiny: Tiny, tmp_path: Path) -> None:
    wanted = "--task", "depth", "--codec", "uniform", "--codec", "hyperprior"
    found = []
    for n in ("1", "2"):
        out = tmp_path / n
        assert tiny(out, *wanted, "--coding-workers", n).exit_code == 0
        found.append(table_module.load(out).drop(columns=TIMES))
    pd.testing.assert_frame_equal(found[0], found[1], check_exact=True)


def test_a_neck_in_bfloat16_is_a_row_of_its_own_and_codes_the_same_bytes(
    tiny: Tiny, finished: Path, tmp_path: Path
) -> None:
    result = tiny(tmp_path, "--task", "segmentation", "--neck-dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    found, plain = (table_module.load(p) for p in (tmp_path, finished))
    plain = plain[plain.task == "segmentation"].reset_index(drop=True)
    assert set(found.neck) == {"neck_2L@bfloat16"} and not set(found.point) & set(plain.point)
    for column in ("n_bytes", "bpp_estimated", "checkpoint_sha256", "feature_mse"):
        pd.testing.assert_series_equal(found[column], plain[column])
    assert 0 < (found.value - plain.value).abs().max() < 0.05


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++")
def test_compiled_encoders_and_necks_are_rows_of_their_own(tiny: Tiny, finished: Path, tmp_path: Path) -> None:
    result = tiny(tmp_path, "--task", "segmentation", "--codec", "uniform", "--compile")
    assert result.exit_code == 0, result.output
    found, plain = (table_module.load(p) for p in (tmp_path, finished))
    plain = plain[(plain.task == "segmentation") & (plain.codec != "hyperprior")].reset_index(drop=True)
    assert set(found.encoder) == {"sam2_nano@compiled"} and set(found.neck) == {"neck_2L@compiled"}
    assert (found.value - plain.value).abs().max() < 0.05
    assert set(found.kmac_per_px.dropna()) == set(plain.kmac_per_px.dropna())


def test_an_encoder_in_bfloat16_is_a_row_of_its_own(tiny: Tiny, fcbench: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = "--task", "depth", "--codec", "uniform", "--encoder-dtype", "bfloat16"
    result = tiny(out, *wanted, "--keep-streams")
    assert result.exit_code == 0, result.output
    assert set(table_module.load(out).encoder) == {"sam2_nano@bfloat16"}
    codec = next((out / "streams").glob("*.safetensors"))
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    result = fcbench(
        "encode", str(image), "--checkpoint", str(codec), "-o", str(tmp_path / "image.fcb"), "--weights", "random"
    )
    assert result.exit_code == 0, result.output
