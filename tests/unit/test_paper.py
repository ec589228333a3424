"""The paper's tables from planted rows; its suites, and what they need."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from points import end

from fcbench.analysis import situations
from fcbench.analysis.paper import Cell, cells
from fcbench.core.errors import FcbenchError
from fcbench.core.features import OFFLINE
from fcbench.measure import cross_neck, paper
from fcbench.measure.run import Summary
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.measure.workshop import Setup
from fcbench.reports import paper_table, tables
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable
from fcbench.training.options import Budget

N = 30
CPU = torch.device("cpu")
BASE = Suite(
    tasks=("depth", "segmentation"),
    head="frozen",
    image_size_px=(64, 64),
    n_train=12,
    n_test=6,
    budget=Budget(task_steps=2, task_batch=4, width=32),
)


def metric_values_of(task: str) -> Any:
    name = {"b": "miou", "e": "rmse"}[task]
    return lambda stats, weights: {name: weights @ stats[:, 0] / weights.sum(1)}


def plant(path: Path) -> pd.DataFrame:
    """A special encoder that loses a tenth at b behind its own neck, more through a, and gains at e, an error."""
    noise = np.random.default_rng(0).normal(size=N)
    pair = "neck_2L(a) > neck_2L"
    with ResultsFolder(path) as folder:
        for encoder, task, neck, value, n_steps in (
            ("general", "b", "neck_2L", 0.5, 300),
            ("special", "b", "neck_2L", 0.45, 400),
            ("general", "b", pair, 0.4, 500),
            ("special", "b", pair, 0.27, 600),
            ("general", "b", "neck_6L", 0.5, 700),
            ("special", "b", "neck_6L", 0.5, 800),
            ("general", "e", "neck_2L", 1.0, 300),
            ("special", "e", "neck_2L", 0.8, 300),
        ):
            stats = value * (1 + 0.05 * (noise - noise.mean()))
            about = {"encoder": encoder, "task": task, "neck": neck, "head": f"frozen:{task}", "neck_loss": "task"}
            metric = {"metric": "miou", "higher_is_better": True}
            metric = metric if task == "b" else {"metric": "rmse", "higher_is_better": False}
            row = end("ceiling", value, point=f"p{n_steps}{encoder}{task}", n_samples=N, bpp=16.0, **about, **metric)
            row = replace(row, value=float(stats.mean()), n_bytes=N, task_done=n_steps)
            folder.append([row], SampleTable([f"s{i}" for i in range(N)], [1] * N, stats[:, None]))
    return situations.load([path])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame) -> dict[tuple[str, str, int], Cell]:
    made, notes = cells(rows, "general", metric_values_of, 200)
    assert notes == []
    return {(c.encoder, c.chain.name, c.n_layers): c for c in made}


@pytest.mark.parametrize(
    ("of", "of_general", "of_direct"),
    [
        (("general", "b", 2), 1.0, 1.0),
        (("special", "b", 2), 0.9, 1.0),
        (("general", "a > b", 2), 1.0, 0.8),
        (("special", "a > b", 2), 0.675, 0.6),
        (("special", "b", 6), 1.0, 1.0),  # each depth has its own reference
        (("special", "e", 2), 1.25, 1.0),  # lower is better
    ],
)
def test_planted_shares_are_found(found: Any, of: Any, of_general: float, of_direct: float) -> None:
    cell = found[of]
    assert cell.of_general.value == pytest.approx(of_general) and cell.of_direct.value == pytest.approx(of_direct)
    assert cell.value.low < cell.value.value < cell.value.high
    assert cell.of_general.low == pytest.approx(of_general)  # paired: both encoders see the same noise


def test_tables_say_what_was_measured_and_how_it_was_trained(rows: pd.DataFrame, found: Any) -> None:
    document = paper_table.document(list(found.values()), rows, "general", ())
    text = tables.markdown(document)
    assert "| layers | neck of | encoder | b (miou) |" in text and "| 2 | a | special | 600 plateau |" in text
    assert "**single-neck, frozen decoder, distillation off: share of the general encoder's value**" in text
    assert "| 2 | special | 0.900 (0.900, 0.900) | 1.250 (1.250, 1.250) |" in text
    assert "8 of 8 did" in text and paper_table.EMBEDDED in text and paper_table.RANDOM not in text
    assert tables.latex(document).count(r"\toprule") == 7
    frame = document.frame
    assert list(frame[frame["neck_of"] == "a"]["steps"]) == ["500", "600"] and len(frame) == 8


def test_a_missing_general_encoder_is_a_reason_not_a_number(rows: pd.DataFrame) -> None:
    made, _ = cells(rows[rows["encoder"] == "special"], "general", metric_values_of, 200)
    assert {c.of_general.reason for c in made} == {"the general encoder has other seeds"}
    with pytest.raises(FcbenchError, match="no point was measured: boom"):
        cells(rows.assign(status="boom"), "general")


# ----------------------------------------------------------------------------------------------- suites
def test_suites() -> None:
    every = paper.suites(BASE)
    assert list(every) == [f"neck_{n}L{suffix}" for n in (2, 4, 6) for suffix in ("", "-distilled")]
    assert every["neck_6L-distilled"].neck_loss == "both" and not every["neck_2L"].null_model
    assert list(paper.suites(replace(BASE, head="trained"))) == ["neck_2L", "neck_4L", "neck_6L"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoders": ("hiera_nano",)}, "two encoders, general,special; got 1: hiera_nano"),
        ({"encoders": ("hiera_nano", "sam3_nano")}, "sam3_nano"),
        ({"tasks": ("depth",)}, "at least two tasks"),
    ],
)
def test_refusals(change: Any, words: str) -> None:
    with pytest.raises(FcbenchError, match=words):
        paper.suites(replace(BASE, **change))


def test_each_suite_is_said_with_its_own_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with the time since another one ended."""

    def measured(*_: object, **__: object) -> Summary:
        time.sleep(0.2)
        return Summary(0, 0, 0, ())

    monkeypatch.setattr(cross_neck, "measure", measured)
    monkeypatch.setattr(paper, "workers", lambda n, doing: ThreadPoolExecutor(n))
    monkeypatch.setattr(paper, "setup_of", lambda *_: Setup(BASE, tmp_path, "cpu"))
    monkeypatch.setattr(Setup, "open", lambda setup, report: SimpleNamespace(study=None))
    study: Any = SimpleNamespace(of=lambda suite: None, device=CPU)
    assert paper.measure(study, {"one": BASE, "other": BASE}, tmp_path, 2, None) == []
    said = re.findall(r"(one|other) \(([\d.]+) s", capsys.readouterr().err)
    assert {name for name, _ in said} == {"one", "other"} and all(float(took_s) >= 0.2 for _, took_s in said)


def test_needs_are_counted_and_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing weights are named with their source; random ones take their place, and what is left can be timed."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    suite = paper.suites(replace(BASE, encoders=("hiera:tiny", "sam2_nano")), ["neck_2L"])["neck_2L"]
    study = open_study(suite, tmp_path / "cache", CPU)
    with paper.offline():
        needed = {w.what: w for of in (paper.encoder_weights, paper.decoder_weights) for w in of(study)}
        counts, cost = paper.left(study, tmp_path / "out")
    assert OFFLINE not in os.environ
    assert "would download" in needed["hiera:tiny"].missing and "hiera_tiny_224.mae" in needed["hiera:tiny"].missing
    assert needed["sam2_nano"].origin == needed["depth: nano_depth"].origin == "embedded"
    assert needed["hiera:tiny"].n_bytes > 1e8
    assert (counts.n_points, counts.n_found) == (2 * 6, 0)  # two direct necks, four pairs, both encoders
    assert cost.readouts_s > 0 and cost.feature_bytes > 0 and paper.memory_bytes(study) == 4 * 32 * 4 * 4 * 18
