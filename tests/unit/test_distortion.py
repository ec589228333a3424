"""Rate-distortion curves: the SNR of decoded features as a metric of its own."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import bjontegaard
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from points import rate_point

from fcbench.analysis import distortion, situations
from fcbench.analysis.compare import compare
from fcbench.cli.main import main
from fcbench.core.codecs import Kind
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable

CURVES = {
    "a": [(0.05, 0.5), (0.1, 0.3), (0.2, 0.15), (0.4, 0.06)],
    "b": [(0.04, 0.5), (0.09, 0.25), (0.2, 0.12), (0.3, 0.07)],
}
TASKS = "depth", "segmentation"


def row(task: str, codec: str, bpp: float, mse: float, **other: object) -> RatePoint:
    point = f"{task}-{codec}-{round(1000 * bpp)}"
    return rate_point(
        **{"point": point, "task": task, "codec": codec, "params": f'{{"at": {bpp}}}', "bpp": bpp, "feature_mse": mse}
        | {"value": 1 - mse / 2, "neck": f"neck of {task}"}
        | other
    )


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    every = [row(t, c, *p) for t, (c, points) in itertools.product(TASKS, CURVES.items()) for p in points]
    every += [row(t, "lossless", 9.0, 0.0) for t in TASKS]
    every += [row(t, "mean", 0.0, 1.0, kind=Kind.FLOOR) for t in TASKS]
    every += [row(t, "fitted", 0.1, 0.4, objective="task") for t in TASKS]
    with ResultsFolder(tmp_path) as folder:
        for one in every:
            folder.append([one], SampleTable(["a"], [9], np.ones((1, 2))))
    return situations.load([tmp_path])


def test_a_point_has_one_snr_for_all_tasks(rows: pd.DataFrame) -> None:
    added = distortion.add(rows, [distortion.METRIC])
    made = added[added["metric"] == distortion.METRIC]
    assert len(added) == len(rows) + len(made) and set(made["task"]) == {"distortion"}
    assert made.groupby("codec").size().to_dict() == {"a": 4, "b": 4, "mean": 1, "fitted": 2}, "lossless: infinite"
    assert set(made.loc[made["codec"] == "fitted", "objective"]) == {"task: depth", "task: segmentation"}
    assert list(made.loc[made["codec"] == "b", "value"]) == pytest.approx([-10 * math.log10(m) for _, m in CURVES["b"]])
    assert distortion.add(rows, ["miou", None]) is rows, "only where it is named"
    assert not made["primary"].any() and list(made.loc[made["codec"] == "mean", "value"]) == [0.0]


def test_its_bd_rate_is_that_of_the_reference(rows: pd.DataFrame) -> None:
    comparisons, _ = compare(distortion.add(rows, [distortion.METRIC]), "a", [distortion.METRIC])
    (found,) = [c for c in comparisons if c.codec == "b"]
    (xs, ys), (us, vs) = (
        zip(*((bpp, -10 * math.log10(mse)) for bpp, mse in points)) for points in (CURVES["a"], CURVES["b"])
    )
    expected = bjontegaard.bd_rate(xs, ys, us, vs, method="pchip", require_matching_points=False)
    assert found.bd_rate_percent.value == pytest.approx(expected, rel=1e-6)
    assert found.bd_rate_percent.low is None and found.rate_at_target.reason == "there is no uncoded ceiling"


def test_its_intervals_are_of_the_errors_of_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 1.5, 40)
    ids = [f"s{i}" for i in range(40)]
    with ResultsFolder(tmp_path) as folder:
        for codec, scale in (("a", 1.0), ("b", 1.1)):
            for bpp, mse in CURVES["a"]:
                errors = mse * scale * spread / spread.mean()
                samples = SampleTable(ids, [9] * 40, np.ones((40, 2)), feature_error=errors)
                for task in TASKS:
                    folder.append([row(task, codec, bpp, float(errors.mean()), n_samples=40)], samples)
    rows = distortion.add(situations.load([tmp_path]), [distortion.METRIC])
    comparisons, notes = compare(rows, "a", [distortion.METRIC])
    (found,) = [c for c in comparisons if c.codec == "b"]
    gain = found.bd_accuracy
    assert gain.value == pytest.approx(-10 * math.log10(1.1), abs=1e-3)
    assert gain.low == pytest.approx(gain.value, abs=1e-3), "both err on the same samples: the difference is certain"
    weights = rng.multinomial(40, np.full(40, 1 / 40), 500)
    expected = [-10 * math.log10((w @ spread) / 40 / spread.mean()) for w in weights]
    assert distortion.values(spread / spread.mean(), weights)[distortion.METRIC] == pytest.approx(expected)
    assert not notes


def test_the_verbs_know_it(rows: pd.DataFrame, tmp_path: Path) -> None:
    run = CliRunner().invoke
    shown = run(main, ["compare", str(tmp_path), "--anchor", "a", "--metric", "feature_snr"])
    assert shown.exit_code == 0 and "distortion: feature_snr; anchor a" in shown.output, shown.output
    assert "intervals are empty" in shown.output and "/ segmentation" not in shown.output
    both = run(main, ["compare", str(tmp_path), "--anchor", "a", "--metric", "feature_snr", "--metric", "miou"])
    assert "/ segmentation: miou" in both.output and "distortion: feature_snr" in both.output
    points = run(main, ["curves", str(tmp_path), "--metric", "feature_snr", "-o", str(tmp_path / "points.csv")])
    assert points.exit_code == 0 and len(pd.read_csv(tmp_path / "points.csv")) == 4 + 4 + 2
    theirs = ["--published", str(tmp_path / "points.csv")]
    beside = run(main, ["compare", str(tmp_path), "--anchor", "a", "--metric", "feature_snr", *theirs])
    assert beside.exit_code == 0 and "b (published)" in beside.output, beside.output
    drawn = run(main, ["plot", str(tmp_path), *theirs, "--metric", "feature_snr", "-o", str(tmp_path / "d.png")])
    assert drawn.exit_code == 0 and (tmp_path / "d.png").stat().st_size > 10_000
