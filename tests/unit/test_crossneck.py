"""Cross-neck analysis: which chains there are, that each is what it says, resumption, and what its tables find."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from points import end, rate_point, to_frame

from fcbench.analysis import situations
from fcbench.analysis.cross_neck import kind_of_chain, matrices
from fcbench.core.errors import FcbenchError
from fcbench.measure import cross_neck
from fcbench.measure.cross_neck import Chains, chains, neck_of_depth
from fcbench.measure.point import send_and_read
from fcbench.measure.study import Study, open_study
from fcbench.measure.suite import Suite
from fcbench.reports import tables
from fcbench.reports.cross_neck_table import document
from fcbench.results import table as table_module
from fcbench.results.chain import Chain, parse
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SampleTable
from fcbench.training.options import Budget
from fcbench.training.readout import Standardize

TASKS = ("depth", "segmentation")
SUITE = Suite(
    encoders=("sam2_nano",),
    codecs=("uniform",),
    tasks=TASKS,
    weights="random",
    image_size_px=(64, 64),
    n_train=12,
    n_test=6,
    params={"uniform": ({"bits": 2}, {"bits": 4})},
    budget=Budget(task_steps=2, task_batch=4, width=32),
)
CPU = torch.device("cpu")


def study(cache: Path) -> Study:
    return open_study(SUITE, cache, CPU)


# -------------------------------------------------------------------------------------------- chains
def test_every_ordered_pair_every_control() -> None:
    every = list(chains(("a", "b", "c", "d"), "neck_2L", 3))
    kinds = Counter(kind_of_chain(c, "neck_2L") for c in every)
    assert kinds == {"direct": 4, "self": 4, "cross": 12, "chain": 24, "deep": 8}
    assert len(set(every)) == len(every)
    assert {c.neck for c in every} == {"neck_2L", "neck_4L", "neck_6L"}


def test_depth_of_the_control() -> None:
    assert neck_of_depth("neck_2L", 2) == "neck_4L" and neck_of_depth("neck_2L", 3) == "neck_6L"
    assert neck_of_depth("neck_6L", 2) is None and neck_of_depth("linear", 2) is None


@pytest.mark.parametrize(
    "chain",
    [
        Chain("neck_2L", (), "depth"),
        Chain("neck_2L", ("pose",), "depth", 1),
        Chain("linear", ("pose", "captioning"), "depth"),
        Chain("neck_2L", ("pose", "captioning"), "depth", 2),
    ],
)
def test_names_can_be_read_back(chain: Chain) -> None:
    after = chain.coded_after
    split = f"neck:{chain.before[after - 1]}" if after else "stage3"
    assert parse(chain.label, chain.task, split) == chain


@pytest.mark.parametrize(
    ("suite", "length", "words"),
    [
        (SUITE, 4, "2 to 3"),
        (replace(SUITE, tasks=("depth",)), 2, "at least two tasks"),
        (replace(SUITE, codecs=("image:jpeg",)), 2, "does not code features"),
        (replace(SUITE, objective="task"), 2, "needs mse"),
        (replace(SUITE, neck="nek_2L"), 2, "Did you mean"),
    ],
)
def test_refusals(suite: Suite, length: int, words: str) -> None:
    with pytest.raises(FcbenchError, match=words):
        cross_neck.check(suite, length, True)


# --------------------------------------------------------------------------------------- a tiny run
@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-neck folder; killed once on the way."""
    out = tmp_path_factory.mktemp("out") / "run"
    append, calls = ResultsFolder.append, list[int]()

    def dies(self: ResultsFolder, *args: Any) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        append(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultsFolder, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            cross_neck.measure(study(cache), out, coded=True)
    assert table_module.load(out).point.nunique() == 5
    summary = cross_neck.measure(study(cache), out, coded=True)
    assert not summary.failures and summary.n_found == 5
    return out


def rows_of(path: Path) -> Any:
    df = table_module.load(path)
    return df[df.primary]


def test_rows_are_complete(finished: Path) -> None:
    df = rows_of(finished)
    assert (df.status == "ok").all()
    uncoded, coded = df[df.kind == "ceiling"], df[df.kind == "coded"]
    assert len(uncoded) == 2 + 4 + 2  # direct, pairs and selves, deep
    assert len(coded) == 2 * (2 + 4 + 4)  # direct and pairs before, pairs between
    between = coded[coded.split.str.startswith("neck:")]
    assert len(between) == 8 and set(between.split) == {"neck:depth", "neck:segmentation"}
    assert (between.n_points == 6 * 32 * 4 * 4).all()  # six samples of neck outputs
    assert set(coded[coded.split == "stage3"].n_points) == {6 * 128 * 4 * 4}


def test_depth_of_a_chain_is_in_its_row(finished: Path) -> None:
    df = rows_of(finished)
    df = df[(df.kind == "ceiling") & (df.task == "depth")]
    params = {n: json.loads(p)["neck"] for n, p in zip(df.neck, df.n_params)}
    direct, chain = params["neck_2L"], params["neck_2L(depth) > neck_2L"]
    assert direct < params["neck_4L"] < chain < 2 * direct + 4096


def test_nothing_is_repeated(finished: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(Chains, "reader", never)
    summary = cross_neck.measure(study(cache), finished, coded=True)
    assert (summary.n_measured, summary.n_found) == (0, 28)


def test_a_chain_reads_through_the_frozen_neck(
    finished: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The model of A > B is B's readout on the output of A's neck, and A's neck is that of the direct chain."""
    seen: list[tuple[Any, Any, torch.Tensor]] = []
    plain: Callable[..., Any] = send_and_read

    def spied(trial: Any, job: Any, source: Any, readers: Any, stream: Any) -> Any:
        for r in readers.values():
            if [n for _, n in getattr(r.model, "necks", ())] == ["neck:depth"]:
                with torch.no_grad():
                    seen.append((trial, r, r.model(source.test.features.batch(range(6)))))
        return plain(trial, job, source, readers, stream)

    monkeypatch.setattr("fcbench.measure.cross_neck.send_and_read", spied)
    cross_neck.measure(study(cache), tmp_path)
    assert len(seen) == 2
    for trial, reader, x in seen:
        first = trial.readout("depth")
        maps = trial.source.test.features.batch(range(6))
        with torch.no_grad():
            middle = first.neck(Standardize.forward(first, maps))
            torch.testing.assert_close(reader.model.last({"neck:depth": middle}), x, rtol=1e-4, atol=1e-4)
        assert not any(p.requires_grad for p in reader.model.parameters())


def test_a_chain_that_fails_leaves_the_others_measured(
    finished: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Chains.reader

    def broken(self: Chains, chain: Chain) -> Any:
        if chain == Chain("neck_2L", ("depth",), "depth"):
            raise FcbenchError("broken")
        return plain(self, chain)

    monkeypatch.setattr(Chains, "reader", broken)
    summary = cross_neck.measure(study(cache), tmp_path)
    assert (summary.n_measured, len(summary.failures)) == (7, 1)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.partition("]")[0] for line in said] == [f"[{i}/8" for i in (1, 2, 4, 5, 6, 7, 8)]
    assert said[0].count("depth") and not said[0].count("segmentation"), "in the order of the tasks"


def test_rows_are_the_same_in_any_folder(finished: Path, cache: Path, tmp_path: Path) -> None:
    cross_neck.measure(study(cache), tmp_path)
    a, b = (rows_of(p).set_index("point").value for p in (tmp_path, finished))
    assert len(a) == 8
    np.testing.assert_allclose(a, b[a.index], rtol=1e-6)


def test_output_files(finished: Path) -> None:
    from fcbench.cli.cross_neck import write

    write(finished)
    lines = list(csv.DictReader((finished / "cross_neck.csv").open()))
    ratios = {(r["role"], r["chain"]): r for r in lines if r["figure"] == "ratio"}
    assert len(ratios) == 8 and float(ratios["direct", "depth"]["value"]) == 1
    bits = [r for r in lines if r["figure"] == "usable_bits_lost"]
    assert len(bits) == 8 and all(r["value"] for r in bits)
    refused = [r for r in lines if r["role"] == "between less before"]
    assert refused and all("need 4" in r["reason"] for r in refused)  # two points
    assert (finished / "cross_neck.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------ planted effects
N = 30


def plant(path: Path) -> Path:
    """Known chains: b loses a tenth through a, coding between the necks takes half as many bits again."""
    ids, noise = [f"s{i}" for i in range(N)], np.random.default_rng(0).normal(size=N)

    def table(value: float) -> SampleTable:
        stats = value * (1 + 0.05 * (noise - noise.mean()))
        return SampleTable(ids, [10] * N, np.stack([stats, np.ones(N)], axis=1))

    def put(folder: ResultsFolder, row: Any, value: float, *nats: Any) -> None:
        samples = SampleTable(*astuple(table(value))[:3], *nats)
        sizes = [row.n_bytes // N] * N
        value = float(samples.stats[:, 0].mean())
        folder.append([replace(row, value=value, n_samples=N)], replace(samples, n_bytes=sizes))

    through = "neck_2L(a) > neck_2L"
    with ResultsFolder(path) as folder:
        for task, neck, value, lost in (
            ("b", "neck_2L", 0.5, 0.0),
            ("b", through, 0.45, 6.0),
            ("b", "neck_4L", 0.5, 0.0),
            ("e", "neck_2L", 0.2, 0.0),
            ("e", through, 0.25, 3.0),
        ):
            key = f"{task}{len(neck)}{neck[5]}"
            row = end(
                "ceiling",
                value,
                task=task,
                neck=neck,
                point=key,
                n_bytes=99 * N,
                higher_is_better=task == "b",
                params="{}",
                bpp=16.0,
            )
            null = -80.0 + noise if neck == "neck_2L" else None
            put(folder, row, value, -50 - lost + noise, null)
        for split, factor in (("stage3", 1.0), ("neck:a", 1.5)):
            for i, value in enumerate((0.2, 0.3, 0.37, 0.41, 0.43)):
                n_bytes = N * int(100 * factor * 2**i)
                row = rate_point(
                    task="b",
                    neck=through,
                    split=split,
                    point=f"c{split[0]}{i}",
                    n_bytes=n_bytes,
                    bpp=n_bytes / 1e4,
                    params=json.dumps({"q": i}),
                )
                put(folder, row, value)
    return path


def metric_values_of(task: str) -> Any:
    return lambda stats, weights: {"miou": weights @ stats[:, 0] / (weights @ stats[:, 1])}


def test_planted_losses_are_found(tmp_path: Path) -> None:
    found = matrices(situations.load([plant(tmp_path)]), metric_values_of, 200)
    by = {(e.chain.task, e.kind): e for e in found.entries}
    assert by["b", "direct"].ratio.value == 1
    assert by["b", "cross"].ratio.value == pytest.approx(0.9)
    assert (by["b", "cross"].ratio.high or 1) < 0.95
    assert by["b", "deep"].ratio.value == pytest.approx(1)
    assert by["e", "cross"].ratio.value == pytest.approx(0.8)  # an error, a quarter more
    assert by["b", "cross"].lost.value == pytest.approx(6 / math.log(2))
    assert by["b", "cross"].information.value == pytest.approx(24 / math.log(2))
    (position,) = found.positions
    assert position.extra_rate_percent.value == pytest.approx(50, abs=0.5)
    assert "| a | 0.900 (" in tables.markdown(document(found))
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated(document(found)))))
    assert len(lines) == 4 * 5 + 2


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(FcbenchError, match="no measured chains"):
        matrices(to_frame([rate_point(status="boom")]))
