"""Comparisons: planted effects, refusals, failures, what may be merged; and what is written of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bjontegaard
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from points import end, rate_point, to_frame
from scipy.interpolate import PchipInterpolator

from fcbench.analysis import curves
from fcbench.analysis import merge as merging
from fcbench.analysis import resampled_curves, situations
from fcbench.analysis.compare import ALL, Comparison, compare
from fcbench.analysis.curves import Loss
from fcbench.analysis.estimate import Estimate, estimate
from fcbench.analysis.resampled_curves import Resampled
from fcbench.cli.main import main
from fcbench.core.errors import FcbenchError
from fcbench.reports import tables
from fcbench.reports.compare_table import document
from fcbench.results.folder import PICTURES, ResultsFolder
from fcbench.results.row import SCHEMA, RatePoint
from fcbench.results.samples import SAMPLES, SampleTable, load_samples, pack
from fcbench.results.table import load_points

N = 24
BASE = np.array([0.20, 0.30, 0.38, 0.44, 0.47])
HEADER_BYTES = 100


def metric_values_of(task: str) -> Any:
    return lambda stats, weights: {"miou": weights @ stats[:, 0] / (weights @ stats[:, 1])}


def stats(value: float, noise: np.ndarray) -> np.ndarray:
    """[N, 2] whose metric is exactly a value, the same samples being easy or hard at every point."""
    rng = np.random.default_rng(5)
    weight = rng.integers(1, 9, N).astype(float)
    got = (value + noise - (noise * weight).sum() / weight.sum()) * weight
    return np.stack([got, weight], axis=1)


def curve_points(
    codec: str, rate: float = 1.0, lift: float = 0.0, seed: int = 0, values: np.ndarray = BASE, **changes: Any
) -> list[tuple[RatePoint, SampleTable]]:
    """A codec's points with samples: rates doubling from 1000 bytes times a factor, values lifted."""
    rng = np.random.default_rng(7)
    hard, size = 0.1 * rng.normal(size=N), rng.integers(50, 400, N)
    out = []
    for i, v in enumerate(values):
        records = [int(b) for b in 4 * rate * 2**i * size]  # whole bytes at factors of a quarter
        n_bytes = sum(records) + round(4 * rate * 2**i * HEADER_BYTES)
        value = float(v + lift)
        own = stats(value, hard)
        key = re.sub("[^a-z0-9]", "", f"{codec}{i}s{seed}")
        row = rate_point(
            point=key,
            codec=codec,
            params=json.dumps({"q": i}),
            seed=seed,
            n_samples=N,
            n_bytes=n_bytes,
            bpp=8 * n_bytes / 65536,
            bpfp=8 * n_bytes / 1000,
            bytes_per_sample=n_bytes / N,
            value=float(own[:, 0].sum() / own[:, 1].sum()),
        )
        out.append((replace(row, **changes), SampleTable([f"s{j}" for j in range(N)], records, own)))
    return out


def ceiling(value: float = 0.475, **changes: Any) -> tuple[RatePoint, SampleTable]:
    own = stats(value, 0.1 * np.random.default_rng(7).normal(size=N))
    row = end("ceiling", value, n_samples=N, n_bytes=10**6, bpp=9.9, objective="", params="{}")
    samples = SampleTable([f"s{j}" for j in range(N)], [10**6 // N] * N, own)
    return replace(row, **changes), samples


def write(path: Path, *points: tuple[RatePoint, SampleTable | None]) -> Path:
    with ResultsFolder(path) as folder:
        for row, samples in points:
            folder.append([row], samples if row.status == "ok" else None)
    return path


def run(*paths: Path, anchor: str = "a", **options: Any) -> dict[str, Comparison]:
    found, _ = compare(situations.load(paths), anchor, metric_values_of=metric_values_of, **options)
    assert len({c.codec for c in found}) == len(found)
    return {c.codec: c for c in found}


def failed(codec: str, i: int = 9, **changes: Any) -> tuple[RatePoint, None]:
    key = re.sub("[^a-z0-9]", "", f"{codec}bad{i}")
    params = json.dumps({"q": i})
    row = rate_point(point=key, codec=codec, params=params, status="boom", n_samples=N)
    none = dict.fromkeys(("value", "bpp", "bpfp", "bytes_per_sample", "n_bytes"), None)
    return replace(row, **{**none, "metric": "", **changes}), None


# ------------------------------------------------------------------------------------- convergence
def capped(rest: float | None) -> dict[str, Any]:
    return {"codec_stop": "steps", "codec_rest": rest}


@pytest.mark.parametrize(
    ("rate", "anchor", "test", "words"),
    [
        (0.75, capped(30.0), capped(30.0), "more training of a may undo this: about 30 % of its bits are left to save"),
        (0.75, capped(20.0), capped(90.0), ""),
        (1.25, capped(90.0), capped(25.0), "more training of b may undo this: about 25 % of its bits are left to save"),
        (1.25, capped(90.0), capped(15.0), ""),
        (0.75, capped(None), {}, "more training of a may undo this: it is not known how many bits that saves"),
        (0.75, {}, {}, ""),
    ],
)
def test_a_difference_that_more_training_may_undo_says_so(
    rate: float, anchor: dict[str, Any], test: dict[str, Any], words: str, tmp_path: Path
) -> None:
    points = [*curve_points("a", **anchor), *curve_points("b", rate=rate, **test), ceiling()]
    found = run(write(tmp_path, *points))
    assert found["b"].doubt == words and found["a"].doubt == ""
    text = tables.markdown(document(list(found.values()), []))
    assert (f"] {words}  " in text) if words else ("more training of" not in text)


def test_what_is_left_is_the_mean_over_a_curve_and_nothing_for_one_that_converged(tmp_path: Path) -> None:
    mixed = [(replace(r, **(capped(40.0) if i else {})), s) for i, (r, s) in enumerate(curve_points("b"))]
    found = run(write(tmp_path, *curve_points("a"), *mixed, *curve_points("c", **capped(None))))
    assert found["a"].left_percent is None and found["b"].left_percent == pytest.approx(32)
    assert math.isnan(found["c"].left_percent or 0.0)
    lines = tables.markdown(document(list(found.values()), [])).splitlines()
    cells = {
        cell[0]: cell[2] for cell in ([c.strip() for c in line.split("|")[1:-1]] for line in lines) if len(cell) > 3
    }
    assert (cells["a"], cells["b"], cells["c"]) == ("--", "32", "not known")


# ---------------------------------------------------------------------------------- planted effects
def test_three_quarters_of_the_bits_is_minus_25_percent(tmp_path: Path) -> None:
    points = [*curve_points("a"), *curve_points("b", rate=0.75), ceiling()]
    found = run(write(tmp_path, *points))["b"]
    rate = found.bd_rate_percent
    assert rate.value == pytest.approx(-25, abs=1e-6)
    assert rate.low is not None and rate.high is not None
    assert rate.low - 1e-9 <= -25 <= rate.high + 1e-9
    assert found.quality_overlap == pytest.approx(1)
    assert 0.7 < (found.rate_overlap or 0) < 1


def test_shift_under_noise_lies_in_its_interval(tmp_path: Path) -> None:
    """Sizes and accuracies of both codecs vary by sample; the interval is no point and holds the planted effect."""
    test = curve_points("b", rate=0.75)
    rng = np.random.default_rng(0)
    noisy = []
    for row, samples in test:
        own = samples.stats.copy()
        extra = rng.normal(0, 0.02, N) * own[:, 1]
        own[:, 0] += extra - extra.mean()
        noisy.append((row, replace(samples, stats=own)))
    rate = run(write(tmp_path, *curve_points("a"), *noisy))["b"].bd_rate_percent
    assert rate.value is not None and rate.low is not None and rate.high is not None
    assert rate.low < -25 < rate.high
    assert 0.1 < rate.high - rate.low < 30


def test_lift_is_the_bd_accuracy(tmp_path: Path) -> None:
    found = run(write(tmp_path, *curve_points("a"), *curve_points("b", lift=0.03)))["b"]
    gain = found.bd_accuracy
    assert gain.value == pytest.approx(0.03, abs=1e-9)
    assert gain.low == pytest.approx(0.03) and gain.high == pytest.approx(0.03)
    assert (found.bd_rate_percent.high or 0) < 0


def test_anchor_against_itself_is_nothing(tmp_path: Path) -> None:
    found = run(write(tmp_path, *curve_points("a"), *curve_points("b")))
    for c in (found["a"], found["b"]):
        assert c.bd_rate_percent == c.bd_accuracy == Estimate(0.0, 0.0, 0.0)


def test_an_error_is_better_where_lower(tmp_path: Path) -> None:
    points = curve_points("a", values=1 - BASE, higher_is_better=False)
    points += curve_points("b", 0.75, values=1 - BASE, higher_is_better=False)
    points += [ceiling(0.54, higher_is_better=False)]
    found = run(write(tmp_path, *points))["b"]
    assert found.bd_rate_percent.value == pytest.approx(-25, abs=1e-6)
    assert found.bd_accuracy.value is not None and found.bd_accuracy.value < 0
    assert found.target == pytest.approx(0.54 * 1.01)
    assert not found.rate_at_target.reason


def test_rate_at_the_ceiling_less_one_percent(tmp_path: Path) -> None:
    """The target is the value of the fourth point: its rate is the answer."""
    folder = write(tmp_path, *curve_points("a"), ceiling(0.44 / 0.99))
    row = next(p for p in load_points(folder) if p.point == "a3s0")
    found = run(folder)["a"]
    assert found.target == pytest.approx(0.44)
    assert found.rate_at_target.value == pytest.approx(row.bpp)
    low, high = found.rate_at_target.low, found.rate_at_target.high
    assert low is not None and high is not None and low < (row.bpp or 0) < high
    other = run(folder, x="bytes_per_sample")["a"]
    assert other.rate_at_target.value == pytest.approx(row.bytes_per_sample)


def test_a_loss_in_points(tmp_path: Path) -> None:
    """Half a point below 0.445 is the value of the fourth point; metrics that are no fractions have no points."""
    folder = write(tmp_path / "a", *curve_points("a"), ceiling(0.445))
    row = next(p for p in load_points(folder) if p.point == "a3s0")
    found = run(folder, loss=Loss(0.5, "pt"))["a"]
    assert found.target == pytest.approx(0.44) and found.rate_at_target.value == pytest.approx(row.bpp)
    metres = write(tmp_path / "b", *curve_points("a", unit="m"), ceiling(0.445, unit="m"))
    assert "points are of fractions" in run(metres, loss=Loss(0.5, "pt"))["a"].rate_at_target.reason
    shown = CliRunner().invoke(main, ["compare", str(folder), "--anchor", "a", "--loss", "0.5pt"]).output
    assert "target 0.44" in shown and "less 0.5 points" in " ".join(shown.split())
    assert "neither a percentage" in CliRunner().invoke(main, ["compare", "x", "--anchor", "a", "--loss", "1"]).output


def test_rate_is_resampled_with_the_samples(tmp_path: Path) -> None:
    """A codec whose record sizes vary has an uncertain rate even where accuracy is sure."""
    flat = [(r, replace(s, stats=np.tile([r.value, 1.0], (N, 1)))) for r, s in curve_points("a")]
    rng = np.random.default_rng(1)
    other = []
    for row, samples in curve_points("b"):
        sizes = [int(b) for b in rng.permutation(np.array(samples.n_bytes))]
        own = np.tile([row.value, 1.0], (N, 1))
        other.append((row, replace(samples, n_bytes=sizes, stats=own)))
    rate = run(write(tmp_path, *flat, *other))["b"].bd_rate_percent
    assert rate.value == pytest.approx(0, abs=1e-9)
    assert rate.low is not None and rate.low < -1
    assert rate.high is not None and rate.high > 1


def test_saturated_end_and_dip_do_not_move_bd_rate(tmp_path: Path) -> None:
    shape = np.array([0.20, 0.30, 0.28, 0.44, 0.44])
    points = curve_points("a") + curve_points("b", values=shape)
    found = run(write(tmp_path, *points))["b"]
    hull = [0, 1, 3]
    rates = np.array([(r.bpp or 0) for r, _ in points])
    expected = bjontegaard.bd_rate(
        rates[:5], BASE, rates[5:][hull], shape[hull], method="pchip", require_matching_points=False, min_overlap=0
    )
    assert found.bd_rate_percent.value == pytest.approx(expected, abs=1e-6)


# ---------------------------------------------------------------------------------- published cases
def cubic_of_2001(r_a: list, q_a: list, r_t: list, q_t: list) -> float:
    """BD-rate of VCEG-M33: one cubic through log rate over quality of each curve [percent]."""
    low, high = max(min(q_a), min(q_t)), min(max(q_a), max(q_t))
    areas = []
    for rates, quality in ((r_a, q_a), (r_t, q_t)):
        primitive = np.polyint(np.polyfit(quality, np.log10(rates), 3))
        areas.append(np.polyval(primitive, high) - np.polyval(primitive, low))
    return float(100 * (10 ** ((areas[1] - areas[0]) / (high - low)) - 1))


def test_published_case_of_two_video_codecs(tmp_path: Path) -> None:
    """The example (kbit/s, PSNR in dB) that comes with many implementations of VCEG-M33.

    On four smooth points the cubic of 2001 and PCHIP nearly agree: 31.40 and 31.38 %.
    """
    r_a, q_a = [686.76, 309.58, 157.11, 85.95], [40.28, 37.18, 34.24, 31.42]
    r_t, q_t = [893.34, 407.80, 204.93, 112.75], [40.39, 37.21, 34.17, 31.24]
    options = {"require_matching_points": True, "min_overlap": 0}
    pchip = bjontegaard.bd_rate(r_a, q_a, r_t, q_t, method="pchip", **options)
    cubic = cubic_of_2001(r_a, q_a, r_t, q_t)
    assert cubic == pytest.approx(31.397374, abs=1e-6)

    def plain(codec: str, rates: list[float], values: list[float]) -> list[RatePoint]:
        return [
            rate_point(point=f"{codec}{i}", codec=codec, params=str(i), bpp=r, value=v)
            for i, (r, v) in enumerate(zip(rates, values))
        ]

    rows = to_frame(plain("a", r_a, q_a) + plain("b", r_t, q_t))
    found = compare(rows.assign(folder=str(tmp_path)), "a")[0][1]
    assert found.bd_rate_percent.value == pytest.approx(pchip, abs=1e-6)
    assert found.bd_rate_percent.value == pytest.approx(cubic, abs=0.05)
    assert found.bd_rate_percent.low is None  # no samples, no interval


# ----------------------------------------------------------------------------------------- refusals
def test_three_points_and_no_overlap_are_refused_with_the_reason(tmp_path: Path) -> None:
    points = curve_points("a") + curve_points("three")[:3]
    points += curve_points("above", rate=64, lift=0.6)
    found = run(write(tmp_path, *points))
    assert found["three"].bd_rate_percent == Estimate(reason="test has 3 points; need 4")
    assert "0 % of their quality" in found["above"].bd_rate_percent.reason
    assert "0 % of their rate" in found["above"].bd_accuracy.reason
    assert found["above"].quality_overlap == 0
    assert found["a"].rate_at_target.reason == "there is no uncoded ceiling"


def test_rates_never_reached_or_never_measured_low_enough(tmp_path: Path) -> None:
    low, high = curve_points("low", lift=-0.1), curve_points("high", lift=0.3)
    points = [*curve_points("a"), *low, *high, ceiling()]
    found = run(write(tmp_path, *points))
    assert "never reached: the best is 0.37" in found["low"].rate_at_target.reason
    assert "below the lowest rate" in found["high"].rate_at_target.reason


def test_anchor_in_no_row_names_the_nearest(tmp_path: Path) -> None:
    folder = write(tmp_path, *curve_points("hyperprior"))
    with pytest.raises(FcbenchError, match="unknown anchor 'hyperpior'. Did you mean 'hyperprior'"):
        run(folder, anchor="hyperpior")


def test_anchor_of_several_objectives_must_be_said(tmp_path: Path) -> None:
    a = curve_points("a")
    b = [(replace(r, objective="task", point=f"{r.point}t"), s) for r, s in a]
    folder = write(tmp_path, *a, *b)
    with pytest.raises(FcbenchError, match="2 curves; give one of: 'a, mse'; 'a, task'"):
        run(folder)
    assert run(folder, anchor="a, mse")["a, task"].bd_rate_percent.value == 0


def test_anchor_absent_from_one_task_is_said_there(tmp_path: Path) -> None:
    pose = curve_points("b", task="pose")
    folder = write(tmp_path, *curve_points("a"), *pose)
    found = run(folder)["b"]
    assert found.bd_rate_percent.reason == "anchor a has no rows here"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"metrics": ["mio"]}, "unknown metric 'mio'. Did you mean 'miou'"),
        ({"anchor": "ceiling"}, "unknown anchor 'ceiling'"),
    ],
)
def test_unknown_names(tmp_path: Path, options: dict, what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        run(write(tmp_path, *curve_points("a"), ceiling()), **options)


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="only ceilings or floors"):
        run(write(tmp_path, ceiling()))
    with pytest.raises(FcbenchError, match="no rows to compare"):
        compare(to_frame([]), "a")


# ----------------------------------------------------------------------------------------- failures
def test_failed_points_are_counted_with_their_reason(tmp_path: Path) -> None:
    points = [*curve_points("a"), *curve_points("b"), failed("b"), failed("none", 0), failed("none", 1)]
    found = run(write(tmp_path, *points))
    assert (found["b"].n_points, found["b"].n_failed) == (5, 1)
    assert found["b"].failure == "boom" and found["b"].bd_rate_percent.value == 0
    assert (found["none"].n_points, found["none"].n_failed) == (0, 2)
    reason = "all 2 points of none failed: boom"
    assert found["none"].bd_rate_percent.reason == reason
    assert (found["a"].n_failed, found["a"].failure) == (0, "")


def test_nan_accuracy_is_a_failed_point(tmp_path: Path) -> None:
    b = curve_points("b")
    b[2] = (replace(b[2][0], value=float("nan")), b[2][1])
    found = run(write(tmp_path, *curve_points("a"), *b))["b"]
    assert (found.n_points, found.n_failed) == (4, 1)
    assert found.failure == "miou is NaN or empty"
    assert found.bd_rate_percent.value is not None


def test_point_that_failed_and_was_measured_elsewhere_is_no_failure(tmp_path: Path) -> None:
    a = write(tmp_path / "1", *curve_points("a"), *curve_points("b")[:4], failed("b", 4))
    b = write(tmp_path / "2", *curve_points("b")[4:])
    found = run(a, b)["b"]
    assert (found.n_points, found.n_failed) == (5, 0)


def test_situation_in_which_everything_failed_is_shown(tmp_path: Path) -> None:
    folder = write(tmp_path, *curve_points("a"), failed("b", task="pose"))
    found = run(folder)["b"]
    assert (found.metric, found.n_failed) == ("", 1)


# ------------------------------------------------------------------------------------ kinds of rows
def test_remote_is_the_best_of_its_codecs(tmp_path: Path) -> None:
    jpeg = curve_points("image:jpeg", 2, kind="remote", objective="")
    webp = curve_points("image:webp", 1.5, kind="remote", objective="")
    folder = write(tmp_path, *curve_points("a"), *jpeg, *webp)
    found = run(folder, anchor="remote")
    assert found["image:webp"].bd_rate_percent.value == pytest.approx(0, abs=1e-9)
    assert found["a"].bd_rate_percent.value == pytest.approx(-100 / 3, abs=1e-6)
    by_name = run(folder, anchor="image:jpeg")["a"].bd_rate_percent
    assert by_name.value == pytest.approx(-50, abs=1e-6)


def test_label_coding_is_a_bound_and_no_curve(tmp_path: Path) -> None:
    label = curve_points("label:png", values=BASE[-1:], kind="label")
    found = run(write(tmp_path, *curve_points("a"), *label, ceiling()))["label:png"]
    assert found.bd_rate_percent.reason == "test is label coding: a bound, no curve"
    assert found.rate_at_target.reason.startswith("never reached")
    better = curve_points("label:jxl", values=np.array([0.475]), kind="label")
    found = run(write(tmp_path, *better))["label:jxl"]
    assert found.rate_at_target.value == better[0][0].bpp


# -------------------------------------------------------------------------------------------- seeds
def test_seeds_are_means_and_drawn(tmp_path: Path) -> None:
    points = [
        p
        for seed, lift in ((0, 0.0), (1, 0.02))
        for p in [*curve_points("a", seed=seed), *curve_points("b", seed=seed, lift=lift)]
    ]
    gain = run(write(tmp_path, *points))["b"].bd_accuracy
    assert gain.value == pytest.approx(0.01)
    assert gain.low == pytest.approx(0) and gain.high == pytest.approx(0.02)


def test_other_seeds_are_refused_and_a_missing_one_is_a_failure(tmp_path: Path) -> None:
    points = curve_points("a") + curve_points("b", seed=1)
    found = run(write(tmp_path / "1", *points))["b"]
    assert found.bd_rate_percent.reason == "anchor has seeds 0, test has seeds 1"
    points = [p for s in (0, 1) for p in curve_points("a", seed=s)][:-1]
    found = run(write(tmp_path / "2", *points))["a"]
    assert (found.n_points, found.n_failed) == (4, 1)
    assert found.failure == "not measured with seed 1"


# ------------------------------------------------------------------------------------ what intervals need
def test_without_samples_intervals_are_empty_and_one_line_says_why(tmp_path: Path) -> None:
    folder = write(tmp_path, *curve_points("a"), *curve_points("b", 0.75))
    for file in (folder / "samples.parquet").glob("b*"):
        file.unlink()
    found, notes = compare(situations.load([folder]), "a", metric_values_of=metric_values_of)
    by = {c.codec: c for c in found}
    assert by["b"].bd_rate_percent.value == pytest.approx(-25)
    assert by["b"].bd_rate_percent.low is None
    assert by["a"].bd_rate_percent.low == 0
    assert len(notes) == 1 and "no samples of 5 points" in notes[0]
    _, notes = compare(situations.load([folder]), "a", metric_values_of=lambda task: None)
    assert any("gives no values" in n for n in notes)


def test_samples_of_other_images_are_not_paired(tmp_path: Path) -> None:
    b = [(r, replace(s, ids=[f"t{i}" for i in range(N)])) for r, s in curve_points("b")]
    rows = situations.load([write(tmp_path, *curve_points("a"), *b)])
    found, notes = compare(rows, "a", metric_values_of=metric_values_of)
    assert found[1].bd_rate_percent.low is None
    assert "different samples" in notes[0]


def test_order_of_samples_does_not_matter(tmp_path: Path) -> None:
    back = [(r, SampleTable(s.ids[::-1], s.n_bytes[::-1], s.stats[::-1])) for r, s in curve_points("b")]
    rate = run(write(tmp_path, *curve_points("a"), *back))["b"].bd_rate_percent
    assert rate.low == pytest.approx(0, abs=1e-9)
    assert rate.high == pytest.approx(0, abs=1e-9)


def test_samples_of_another_number_of_statistics_give_no_interval(tmp_path: Path) -> None:
    short = [(r, replace(s, stats=s.stats[:, :1])) for r, s in curve_points("b")]
    rows = situations.load([write(tmp_path, *curve_points("a"), *short)])
    found, notes = compare(rows, "a", metric_values_of=metric_values_of)
    assert found[1].bd_rate_percent.low is None
    assert notes == ["segmentation: its plug-in gives no values of these statistics, so intervals are empty"]


def test_samples_that_contradict_their_row_are_refused(tmp_path: Path) -> None:
    a = curve_points("a")
    a[0] = (replace(a[0][0], value=0.9 * (a[0][0].value or 0)), a[0][1])
    with pytest.raises(FcbenchError, match="samples of point a0s0 .* do not reproduce its value"):
        run(write(tmp_path, *a))


# ------------------------------------------------------------------------------------------ merging
def test_folders_of_one_suite_are_merged(tmp_path: Path) -> None:
    a = write(tmp_path / "1", *curve_points("a"), ceiling())
    b = write(tmp_path / "2", *curve_points("b", 0.75), ceiling())
    rate = run(a, b)["b"].bd_rate_percent
    assert rate.value == pytest.approx(-25)
    assert rate.low == pytest.approx(-25)


def test_samples_and_pictures_are_joined(tmp_path: Path) -> None:
    mine, yours = write(tmp_path / "1", *curve_points("a"), ceiling()), write(tmp_path / "2", *curve_points("b"))
    pack(mine)
    shutil.rmtree(mine / SAMPLES)
    for folder, keys in ((mine, ["a0", "shared"]), (yours, ["shared", "b0"])):
        points = [{"keys": {"segmentation": key}, "samples": [folder.name]} for key in keys]
        (folder / PICTURES).write_text(json.dumps({"images": {folder.name: "data:"}, "points": points}))

    result = CliRunner().invoke(main, ["merge", str(mine), str(yours), "-o", str(tmp_path / "both")])

    assert result.exit_code == 0, result.output
    for folder in (mine, yours):
        for row in load_points(folder):
            assert load_samples(tmp_path / "both", row.point).ids == load_samples(folder, row.point).ids
    found = json.loads((tmp_path / "both" / PICTURES).read_text())
    assert found["images"].keys() == {"1", "2"}
    assert [(p["keys"]["segmentation"], p["samples"]) for p in found["points"]] == [
        ("a0", ["1"]),
        ("shared", ["1"]),
        ("b0", ["2"]),
    ]


def test_a_failed_point_gives_way_to_its_measurement(tmp_path: Path) -> None:
    row, samples = curve_points("a")[0]
    broken = replace(failed("a")[0], point=row.point, params=row.params), None
    mine = write(tmp_path / "1", *curve_points("a")[1:], broken, failed("b"))
    yours = write(tmp_path / "2", (row, samples), failed("b"))
    both = merging.merge([mine, yours])
    assert (both.taken, both.already) == ((5, 1), (0, 1))
    merging.write(both, [mine, yours], tmp_path / "both")
    found = {p.point: p.status for p in load_points(tmp_path / "both")}
    assert len(found) == 6 and found[row.point] == "ok" and found["bbad9"] == "boom"
    assert load_samples(tmp_path / "both", row.point).ids == samples.ids


@pytest.mark.parametrize("content", ["{", "[]", '{"images": {}}', '{"images": {}, "points": [1]}'])
def test_damaged_pictures_are_named(tmp_path: Path, content: str) -> None:
    mine, yours = write(tmp_path / "1", *curve_points("a")), write(tmp_path / "2", *curve_points("b"))
    (yours / PICTURES).write_text(content)
    result = CliRunner().invoke(main, ["merge", str(mine), str(yours), "-o", str(tmp_path / "both")])
    assert result.exit_code == 1 and f"{yours / PICTURES} is damaged" in result.output


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("dataset_revision", "r2"),
        ("weights_sha256", "ff"),
        ("neck", "neck_4L"),
        ("head", "frozen:x"),
        ("image_size", "64x64"),
        ("n_samples", N + 1),
    ],
)
def test_incompatible_suites_are_refused(tmp_path: Path, column: str, other: Any) -> None:
    a = write(tmp_path / "1", *curve_points("a"))
    b = write(tmp_path / "2", *curve_points("b", **{column: other}))
    with pytest.raises(FcbenchError, match=f"cannot be compared: {column} of") as caught:
        run(a, b)
    assert str(other) in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_share_no_combination_are_refused(tmp_path: Path) -> None:
    def crossed(name: str, *pairs: tuple[str, str]) -> Path:
        return write(tmp_path / name, *[p for neck, head in pairs for p in curve_points(neck, neck=neck, head=head)])

    a, b = crossed("1", ("n2", "trained"), ("n4", "tail")), crossed("2", ("n2", "tail"), ("n4", "trained"))
    said = "neck with head of scenes / .* is n2 with trained or n4 with tail in one and n2 with tail or n4 with trained"
    with pytest.raises(FcbenchError, match=said):
        situations.load([a, b])


def test_other_subjects_may_stand_beside_each_other(tmp_path: Path) -> None:
    a = write(tmp_path / "1", *curve_points("a"))
    b = write(tmp_path / "2", *curve_points("a", dataset="camvid", dataset_revision="r2"))
    found, _ = compare(situations.load([a, b]), "a", metric_values_of=metric_values_of)
    assert [c.dataset for c in found] == ["scenes", "camvid"]


def test_another_budget_is_refused(tmp_path: Path) -> None:
    for name, steps in (("1", 100), ("2", 200)):
        write(tmp_path / name, *curve_points(f"a{name}"))
        with ResultsFolder(tmp_path / name) as folder:
            folder.add_provenance({"name": "s", "budget": {"codec_steps": steps}})
    with pytest.raises(FcbenchError, match="codec_steps is 100 in one and 200"):
        situations.load([tmp_path / "1", tmp_path / "2"])


def test_contradicting_repetitions_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "1", *curve_points("a"), ceiling())
    b = write(tmp_path / "2", *curve_points("b"), ceiling(0.4))
    with pytest.raises(FcbenchError, match="measured twice with different miou"):
        run(a, b)


# ------------------------------------------------------------------------------------- side by side
def side_by_side(*paths: Path, by: str, anchor: str | None = None) -> dict[str, Comparison]:
    found, _ = compare(situations.load(paths, by), anchor, metric_values_of=metric_values_of)
    return {c.codec: c for c in found}


def two_runs(path: Path, name: str, rate: float, top: float, **changes: Any) -> Path:
    a, b = curve_points("a", rate, **changes), curve_points("b")
    return write(path / name, *a, *b, ceiling(top, **{k: v for k, v in changes.items() if k != "codec_steps"}))


@pytest.mark.parametrize(
    ("by", "first", "second", "names"),
    [
        ("folder", {}, {}, ("{}/1", "{}/2")),
        (
            "commit",
            {"commit": "0123456789abcdef-dirty"},
            {"commit": "fedcba9876543210"},
            ("012345678-dirty", "fedcba987"),
        ),
        ("machine", {"cpu": "x", "threads": 2}, {"cpu": "y", "threads": 2}, ("cpu x", "cpu y")),
        ("budget", {"codec_steps": 100}, {"codec_steps": 400}, ("codec_steps 100", "codec_steps 400")),
        (
            "budget",
            {"task_steps": 100, "task_rate": 1e-3},
            {"task_steps": 400, "task_rate": 1e-3},
            ("task_steps 100", "task_steps 400"),
        ),
        (
            "versions",
            {"versions": '{"torch": "2.8", "numpy": "1.26"}'},
            {"versions": '{"torch": "2.9", "numpy": "1.26"}'},
            ("torch 2.8", "torch 2.9"),
        ),
    ],
)
def test_the_same_codec_of_two_runs_is_set_side_by_side(
    tmp_path: Path, by: str, first: dict, second: dict, names: tuple[str, str]
) -> None:
    """The planted effect is found, each at its own run's ceiling; a codec that both runs agree on is left out."""
    other_top = 0.475 if "codec_steps" in first else 0.46
    paths = two_runs(tmp_path, "1", 1.0, 0.475, **first), two_runs(tmp_path, "2", 0.75, other_top, **second)
    found = side_by_side(*paths, by=by)
    one, two = (f"a, {name.format(tmp_path)}" for name in names)
    assert [c for c in found if c.startswith("a")] == [one, two]
    assert by == "folder" or set(found) == {one, two}
    assert found[two].anchor == one
    rate = found[two].bd_rate_percent
    assert rate.value == pytest.approx(-25) and rate.low == pytest.approx(-25)
    assert found[one].target == pytest.approx(0.99 * 0.475) and found[two].target == pytest.approx(0.99 * other_top)
    with pytest.raises(FcbenchError, match="anchor 'a' stands for 2 curves"):
        side_by_side(*paths, by=by, anchor="a")
    assert side_by_side(*paths, by=by, anchor=two)[one].bd_rate_percent.value == pytest.approx(100 / 3)


def test_runs_of_one_folder_are_told_apart_by_commit(tmp_path: Path) -> None:
    points = [*curve_points("a", commit="1" * 40), *curve_points("a", 0.5, seed=0, commit="2" * 40)]
    points = [(replace(row, point=f"p{i}"), samples) for i, (row, samples) in enumerate(points)]
    found = side_by_side(write(tmp_path, *points), by="commit")
    assert found["a, 222222222"].bd_rate_percent.value == pytest.approx(-50)


def test_side_by_side_refuses_what_tells_nothing_apart(tmp_path: Path) -> None:
    paths = two_runs(tmp_path, "1", 1.0, 0.475), two_runs(tmp_path, "2", 1.0, 0.475)
    with pytest.raises(FcbenchError, match="agree in machine: there is nothing"):
        situations.load(paths, "machine")
    with pytest.raises(FcbenchError, match="unknown difference of runs 'comit'. Did you mean 'commit'"):
        situations.load(paths, "comit")
    with pytest.raises(FcbenchError, match="no anchor: give --anchor NAME, or .* --by"):
        compare(situations.load(paths), None)


def test_other_budgets_are_refused_where_the_same_machine_has_both(tmp_path: Path) -> None:
    for name, rate, cpu in (("1", 1.0, "x"), ("2", 0.75, "y")):
        two_runs(tmp_path, name, rate, 0.475, cpu=cpu)
        with ResultsFolder(tmp_path / name) as folder:
            folder.add_provenance({"name": "s", "budget": {"task_steps": int(100 / rate)}})
    paths = tmp_path / "1", tmp_path / "2"
    with pytest.raises(FcbenchError, match="task_steps is 100 in one and 133 in the other.*--by folder"):
        situations.load(paths, "machine")  # codec b and its readout are of one machine
    assert len(situations.load(paths, "folder"))


def test_another_schema_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, *curve_points("a"))
    file = folder / "rates.csv"
    file.write_text(file.read_text().replace(f"\n{SCHEMA},", "\n99,"))
    with pytest.raises(FcbenchError, match="schema 99"):
        situations.load([folder])


def test_metrics_by_name_or_all(tmp_path: Path) -> None:
    rows = [r for r, _ in curve_points("a")]
    more = [replace(r, metric="oks", primary=False) for r in rows]
    df = to_frame(rows + more).assign(folder=str(tmp_path))
    assert [c.metric for c in compare(df, "a")[0]] == ["miou"]
    assert [c.metric for c in compare(df, "a", ["oks"])[0]] == ["oks"]
    assert [c.metric for c in compare(df, "a", [ALL])[0]] == ["miou", "oks"]


# ------------------------------------------------------------------------- many resamples at once
def noisy_curves(higher: bool) -> tuple[Resampled, Resampled]:
    """Two curves under 60 resamples with dips, ties, crossings of rate and too small overlaps."""
    rng, sign = np.random.default_rng(3), 1 if higher else -1
    out = []
    for n, shift in ((5, 0.0), (4, 0.9)):
        rates = np.geomspace(0.1, 3, n)[:, None] * np.exp(rng.normal(0, 0.3, (n, 60)))
        values = np.log(rates) + shift + rng.normal(0, 0.6, (n, 60))
        rates[:2, :6] = rates[0, :6]
        out.append(Resampled(rates, sign * values, higher))
    return out[0], out[1]


def package_bd_rate(a: curves.Curve, t: curves.Curve) -> float:
    a, t = curves.hull(a), curves.hull(t)
    return float(bjontegaard.bd_rate(a.rates, a.quality, t.rates, t.quality, **PACKAGE))


def package_bd_accuracy(a: curves.Curve, t: curves.Curve) -> float:
    best = [np.maximum.accumulate(c.quality) for c in (a, t)]
    sign = 1 if a.higher_is_better else -1
    return sign * float(bjontegaard.bd_psnr(a.rates, best[0], t.rates, best[1], **PACKAGE))


PACKAGE = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}


@pytest.mark.parametrize("higher", [True, False])
def test_many_at_once_are_what_the_package_says_one_at_a_time(higher: bool) -> None:
    a, t = noisy_curves(higher)
    for many, one, package in (
        (resampled_curves.bd_rates, curves.bd_rate, package_bd_rate),
        (resampled_curves.bd_accuracies, curves.bd_accuracy, package_bd_accuracy),
    ):
        pairs = [[curves.curve(c.rates[:, i], c.values[:, i], higher) for c in (a, t)] for i in range(60)]
        refused = np.array([one(*pair).value is None for pair in pairs])
        assert 0 < refused.sum() < 55
        expected = [np.nan if no else package(*pair) for no, pair in zip(refused, pairs)]
        np.testing.assert_allclose(many(a, t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("higher", [True, False])
def test_rates_at_many_targets_are_interpolated(higher: bool) -> None:
    a, _ = noisy_curves(higher)
    expected = np.full(60, np.nan)
    for i in range(60):
        h = curves.hull(curves.curve(a.rates[:, i], a.values[:, i], higher))
        if 0.2 > h.quality[-1]:
            expected[i] = np.inf  # the best point does not reach it
        elif 0.2 < h.quality[0]:
            expected[i] = 0  # the worst point exceeds it
        else:
            expected[i] = 10 ** PchipInterpolator(h.quality, np.log10(h.rates))(0.2)
    assert 0 < np.isinf(expected).sum() < 60 and not np.isnan(expected).any()
    found = resampled_curves.rates_at(a, np.full(60, 0.2 if higher else -0.2))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_target_that_resamples_do_not_reach_has_no_upper_end() -> None:
    """Their rates count, as larger than all others: leaving them out would show the lucky resamples alone."""
    reached = estimate(0.3, [*np.linspace(0.2, 0.4, 900), *[np.inf] * 100])
    assert reached.low == pytest.approx(0.205, abs=1e-3) and reached.high == np.inf and not reached.note
    assert tables.shown(reached, ".3g") == "0.3 (0.205, never)"
    table = tables.Table("", ["codec"], [["a"]], n_left=1)
    as_read = tables.Document([table], "rates", pd.DataFrame({"high": [reached.high, 0.5]}), "", [])
    assert [r["high"] for r in json.loads(tables.as_json(as_read))["rates"]] == ["never", 0.5]
    rarely = estimate(0.3, [*np.linspace(0.2, 0.4, 990), *[np.inf] * 10])
    assert rarely.high == pytest.approx(0.4, abs=0.01)


def test_an_interval_says_of_how_many_resamples_it_is() -> None:
    values = np.linspace(-10, 10, 1000)
    for n, note in ((10, ""), (300, "interval of 70 % of the resamples; in the others the curves miss")):
        found = estimate(1.0, np.where(np.arange(1000) < n, np.nan, values), "the curves miss")
        assert found.note == note and found.low is not None
    most = estimate(1.0, np.where(np.arange(1000) < 700, np.nan, values), "the curves miss")
    assert (most.value, most.low, most.note) == (1.0, None, "no interval: in 70 % of the resamples the curves miss")
    assert tables.Notes().cell(most, ".1f") == "1.0 [1]"


def test_resample_without_a_value_has_no_delta() -> None:
    a, t = noisy_curves(True)
    values = t.values.copy()
    values[0, :] = np.nan
    assert np.isnan(resampled_curves.bd_rates(a, replace(t, values=values))).all()


# ---------------------------------------------------------------------------------------- as text
@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    points = [*curve_points("a_1"), *curve_points("b|&%", 0.75), failed("b|&%")]
    points += [*curve_points("three")[:3], ceiling()]
    rows = situations.load([write(tmp_path_factory.mktemp("r"), *points)])
    return compare(rows, "a_1", metric_values_of=metric_values_of)[0]


def test_csv_and_json_hold_everything(found: list[Comparison]) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(document(found, [])))))
    content = json.loads(tables.as_json(document(found, ["a note"])))
    assert content["notes"] == ["a note"]
    assert [r["codec"] for r in rows] == ["a_1", "b|&%", "three"]
    for row, entry in zip(rows, content["comparisons"]):
        assert list(row) == list(entry)
    assert float(rows[1]["bd_rate_percent"]) == pytest.approx(-25)
    assert rows[1]["n_failed"] == "1" and rows[1]["failure"] == "boom"
    assert rows[2]["bd_rate_percent"] == "" and "3 points" in rows[2]["bd_rate_percent_reason"]
    assert content["comparisons"][2]["bd_rate_percent"] is None


def test_markdown_is_a_table_with_notes(found: list[Comparison]) -> None:
    lines = tables.markdown(document(found, ["a note"])).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert r"b\|&%" in table[3] and "-25.0 (-25.0, -25.0)" in table[3]
    assert "-- [" in table[4] and any("3 points; need 4" in line for line in lines)
    assert "1 failed [2]" in table[3] and any("failed: boom" in line for line in lines)
    assert lines[-1] == "a note"


def test_latex_is_balanced_and_escaped(found: list[Comparison]) -> None:
    text = tables.latex(document(found, ["50 % of a_note"]))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrrrrrr}" and body[-1] == r"\end{tabular}"
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in body
    rows = [line for line in body if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 1 + 3
    assert {line.replace(r"\&", "").count("&") for line in rows} == {6}
    assert r"a\_1" in rows[1] and r"b|\&\%" in rows[2]
    assert "$-$25.0 ($-$25.0, $-$25.0)" in rows[2]
    assert text.count("{") == text.count("}")


def test_terminal_table_keeps_every_cell(found: list[Comparison]) -> None:
    text = tables.terminal(document(found, ["a note"]), width=120)
    for part in ("b|&%", "-25.0 (-25.0, -25.0)", "[1]", "need 4", "boom", "a note"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120


def test_codec_labels_name_the_objective_where_there_are_two() -> None:
    df = pd.DataFrame({"codec": ["a", "a", "b"], "objective": ["mse", "task", "mse"]})
    assert situations.codec_labels(df).tolist() == ["a, mse", "a, task", "b"]
