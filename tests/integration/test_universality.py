"""The universality suite on tiny data: planted effects are found, nothing where nothing was; all parts, resumed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import _planted, universality
from benchmarks.universality import PARTS, QUICK_EXPERIMENT, Experiment, Run, execute
from fcbench.measure.paper import NECKS
from fcbench.measure.suite import TASKS, Suite
from fcbench.results import samples
from fcbench.results import table as table_module
from fcbench.training import loop
from fcbench.training.options import Budget

CPU = torch.device("cpu")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def planted(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the planted effects alone: half the directions that segmentation uses are taken away."""
    base = replace(
        QUICK_EXPERIMENT.base,
        tasks=("segmentation",),
        n_train=96,
        n_test=24,
        budget=replace(QUICK_EXPERIMENT.base.budget, task_steps=80, task_rate=3e-3, width=32),
    )
    experiment = replace(QUICK_EXPERIMENT, base=base, shares=(1.0,), ranks=(64,))
    run = Run(experiment, tmp_path_factory.mktemp("planted"), cache, CPU)
    assert execute(run, ["planted"]) == []
    return run


def test_planted_effects_are_found_and_nothing_is_not(planted: Run) -> None:
    rows = {(r["planted"], r["figure"]): r for r in table(planted.out / "planted.csv")}
    for figure in ("miou", "usable bits"):
        for effect in ("zeroed 1", "projected 64"):
            assert rows[effect, figure]["found"] == "cost", rows[effect, figure]
        itself = rows["nothing", figure]
        assert float(itself["low"]) <= 0 <= float(itself["high"])
        assert itself["found"] == "nothing"
    everything = float(rows["zeroed 1", "usable bits"]["value"])
    assert everything < float(rows["projected 64", "usable bits"]["value"]) + 1e-6


def test_planted_run_repeats_nothing(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(loop, "optimize", never)
    monkeypatch.setattr(_planted, "_measure", never)
    assert execute(planted, ["planted"]) == []
    assert "Planted effects" in (planted.out / "tables.md").read_text()


def test_projection_removes_what_it_should() -> None:
    """The projection takes exactly so many directions away."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(8, 8)).Q
    bench: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_planted, "sensitive_directions", lambda *_: basis)
        left = _planted.projected(bench, "depth", 3)(torch.randn(5, 8, 2, 2))
    seen = left.transpose(0, 1).flatten(1)  # [C, N h w]
    assert int(torch.linalg.matrix_rank(seen, rtol=1e-4)) == 5
    assert torch.allclose(basis[:, :3].T @ seen, torch.zeros(3, 20), atol=1e-5)


# ---------------------------------------------------------------------------------------------- plan
def test_plan_counts_what_it_runs() -> None:
    experiment = Experiment(Suite(codecs=("hyperprior",), budget=Budget()))
    grid = experiment.grid()
    heads = {(s.neck, s.head, s.neck_loss): s.seeds for s in grid}
    assert heads["neck_2L", "trained", "task"] == (0, 1, 2)
    assert heads["neck_6L", "frozen", "task"] == (0,)
    assert heads["neck_2L", "frozen", "distill"] == (0,)
    assert {s.neck for s in grid} == set(NECKS)
    points, readouts, codecs = experiment.counts("grid")
    n_runs = sum(len(s.seeds) for s in grid)
    assert (readouts, codecs) == (2 * len(TASKS) * n_runs, 0) and points == 3 * readouts
    full = replace(experiment, all_seeds=True)
    assert sum(len(s.seeds) for s in full.grid()) == 3 * (3 + 3 * 3)


def test_two_encoders_are_needed() -> None:
    result = CliRunner().invoke(universality.main, ["--encoders", "hiera_nano"])
    assert result.exit_code != 0 and "give two" in str(result.exception)


@pytest.mark.slow
def test_every_part(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts, their tables, then again: nothing is trained twice."""
    run = Run(QUICK_EXPERIMENT, tmp_path, cache, CPU)
    universality.announce(run, PARTS)
    assert execute(run, PARTS) == []
    for part in ("grid", "coded", "cross", "splits", "planted"):
        df = table_module.load(tmp_path / part)
        assert (df.status == "ok").all(), part
        assert len(df.point.unique()) == QUICK_EXPERIMENT.counts(part)[0], part
    for name in ("grid", "cost", "splits", "cka", "planted", "cross/cross_neck"):
        assert table(tmp_path / f"{name}.csv")
    for p in table_module.load_points(tmp_path / "coded"):
        kept = samples.load_samples(tmp_path / "coded", p.point)
        assert kept.log_likelihood is not None
        assert (kept.null_log_likelihood is not None) == (p.kind == "ceiling")
    figures = {r["figure"] for r in table(tmp_path / "cost.csv")}
    assert {"information_difference", "extra_rate_at_equal_accuracy", "information_kept"} <= figures
    page = (tmp_path / "tables.md").read_text()
    assert page.count("## ") == 6 and "The embedded encoders" in page

    def never(*_: object, **__: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(loop, "optimize", never)
    assert execute(run, PARTS) == []
