"""`fcbench run --features`: a folder that a script from outside the package made, through codecs and a command."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny import TINY

from fcbench.cli.main import main
from fcbench.results import table

EXAMPLES = Path(__file__).parents[2] / "benchmarks" / "examples"
READ = f"{sys.executable} {EXAMPLES / 'read_features.py'}"

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example writes."""
    folder = tmp_path_factory.mktemp("features")
    argv, sys.argv = sys.argv, ["write_features.py", str(folder)]
    runpy.run_path(str(EXAMPLES / "write_features.py"))
    sys.argv = argv
    return folder


@pytest.fixture(scope="module")
def run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    cache = tmp_path_factory.mktemp("cache")

    def call(*args: object) -> Result:
        given = "--codec-steps 4 --batch 8 --threads 1 --device cpu --no-report".split()
        return CliRunner().invoke(
            main, ["run", "--features", str(features), "--cache-dir", str(cache), *given, *map(str, args)]
        )

    return call


def test_any_model_can_be_measured(run: Run, features: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("--codec", "uniform", "--codec", "hyperprior", "--lambdas", "2", "--metric-command", READ, "--out", out)
    assert done.exit_code == 0, done.output
    rows = table.load(out)
    assert set(rows.status) == {"ok"} and set(rows.metric) == {"command", "mse", "cosine"}
    assert set(rows.encoder) == {"extracted:toy"} and set(rows.weights_origin) == {"manifest:toy"}
    assert set(rows["head"]) == {READ} and set(rows.image_size) == {""} and set(rows.n_px) == {40 * 64 * 64}
    assert set(rows.n_points) == {40 * 17 * 8}
    assert rows[["encoder_ms", "neck_ms", "head_ms"]].isna().all(axis=None), "there are no networks"
    value = {m: rows[rows.metric == m].set_index(["codec", "params"]).value for m in ("command", "mse", "cosine")}
    assert value["mse"]["uncoded"].iloc[0] == 0 and value["cosine"]["uncoded"].iloc[0] == pytest.approx(1)
    assert value["command"]["uncoded"].iloc[0] > 0.8 > value["command"]["mean"].iloc[0]
    errors = value["mse"]["uniform"].to_numpy()
    assert (np.diff(errors) < 0).all() and errors[-1] < 0.01 < value["mse"]["mean"].iloc[0]
    assert rows[rows.metric == "command"].ci_low.notna().all(), "the command speaks of each sample"
    again = run("--codec", "uniform", "--metric-command", READ, "--out", out)
    assert "measured 0 points" in again.output


def test_a_number_for_all_has_no_interval(run: Run, tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'print(0.5)'"
    assert run("--codec", "uniform", "--metric-command", command, "--out", tmp_path / "out").exit_code == 0
    rows = table.load(tmp_path / "out")
    own = rows[rows.metric == "command"]
    assert set(own.value) == {0.5} and own.ci_low.isna().all() and rows[rows.metric == "mse"].ci_low.notna().all()
    compared = CliRunner().invoke(main, ["compare", str(tmp_path / "out"), "--anchor", "uniform"])
    assert compared.exit_code == 0, compared.output


def test_without_a_command_there_is_distortion(run: Run, tmp_path: Path) -> None:
    assert run("--codec", "uniform", "--out", tmp_path / "out").exit_code == 0
    rows = table.load(tmp_path / "out")
    assert set(rows.metric) == {"mse", "cosine"} and set(rows["head"]) == {"tail"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--encoder", "hiera_nano"), "--encoder does not go with --features"),
        (("--image-size", "64"), "--image-size does not go with --features"),
        (("--codec", "image:jpeg"), "'extracted' has no images that image:jpeg could code"),
        (("--metric-command", "no-such-program"), "'no-such-program' cannot be run"),
        (("--encoder-dtype", "bfloat16"), "--encoder-dtype does not go with --features"),
        (("--compile",), "--compile does not go with --features"),
        (("--objective", "task"), "--objective does not go with --features"),
    ],
)
def test_what_does_not_go_is_one_line(options: tuple[str, ...], words: str, run: Run, tmp_path: Path) -> None:
    done = run("--codec", "raw", *options, "--out", tmp_path / "out")
    assert done.exit_code == 1 and words in done.output and "Traceback" not in done.output


def test_a_command_needs_features(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, [*TINY, "--metric-command", READ, "--cache-dir", str(tmp_path / "c"), "--out", str(tmp_path)]
    )
    assert done.exit_code == 1 and "--features FOLDER alone" in done.output


def test_nan_is_named(features: Path, run: Run, tmp_path: Path) -> None:
    manifest = json.loads((features / "manifest.json").read_text())
    for sample in manifest["samples"]:
        np.save(tmp_path / f"{sample['id']}.npy", np.load(features / f"{sample['id']}.npy"))
    np.save(tmp_path / "7.npy", np.full((17, 8), np.nan, np.float32))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = run("--features", tmp_path, "--codec", "raw", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "sample 7 holds NaN or infinity" in done.output
    kept = run("--features", tmp_path, "--codec", "raw", "--on-bad-image", "skip", "--out", tmp_path / "out")
    assert kept.exit_code == 0 and set(table.load(tmp_path / "out").n_train) == {59}
