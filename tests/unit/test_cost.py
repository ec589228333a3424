"""Costs of specialization: planted effects are found with their size, an encoder against itself costs nothing."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from points import end, rate_point

from fcbench.analysis import situations
from fcbench.analysis.bootstrap import Point, likelihoods
from fcbench.analysis.cost import Cost, Costs, costs, verdict
from fcbench.analysis.estimate import Estimate
from fcbench.cli.main import main
from fcbench.core.errors import FcbenchError
from fcbench.reports import cost_figure, tables
from fcbench.reports.cost_table import document
from fcbench.results.folder import ResultsFolder
from fcbench.results.samples import SAMPLES, SampleTable, load_samples

N = 40
RATES = np.array([0.20, 0.30, 0.38, 0.44, 0.47])
NULL, TOP = -90.0, -50.0
"""Mean log-likelihoods [nats] of the null model and of the general encoder."""


def metric_values_of(task: str) -> Any:
    return lambda stats, weights: {"miou": weights @ stats[:, 0] / (weights @ stats[:, 1])}


def stats(value: float, seed: int = 5) -> np.ndarray:
    """[N, 2] whose metric is exactly a value; samples are hard or easy alike for all encoders, but for a little."""
    hard = 0.1 * np.random.default_rng(1).normal(size=N)
    own = hard + 0.01 * np.random.default_rng(seed).normal(size=N)
    return np.stack([value + own - own.mean(), np.ones(N)], axis=1)


def plant(
    path: Path,
    encoder: str,
    lift: float = 0.0,
    rate: float = 1.0,
    lost_nats: float | None = 0.0,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Points of an encoder: metric lifted, rates times a factor, so many nats lost; None: no likelihoods at all."""
    ids, noise = [f"s{i}" for i in range(N)], np.random.default_rng(2).normal(size=N)
    own = 0.2 * np.random.default_rng(int(1000 * rate + 100 * abs(lift))).normal(size=N)
    with ResultsFolder(path) as folder:
        for i, value in enumerate([*RATES, 0.48]):
            key = f"{encoder}{i}s{seed}".replace("_", "")
            if i < len(RATES):
                sizes = [int(s) for s in 1000 * rate * 2**i * np.exp(0.1 * noise)]
                n_bytes = sum(sizes)
                row = rate_point(params=json.dumps({"q": i}), n_bytes=n_bytes)
                row = replace(row, bpp=8 * n_bytes / 65536, bytes_per_sample=n_bytes / N)
            else:
                sizes = [9999] * N
                row = end("ceiling", 0.0, n_bytes=9999 * N, params="{}", objective="", bpp=16.0)
            table = stats(value + lift, seed)
            row = replace(
                row,
                point=key,
                encoder=encoder,
                weights_sha256=encoder,
                seed=seed,
                n_samples=N,
                value=float(table[:, 0].mean()),
            )
            log_likelihoods = null = None
            if lost_nats is not None:
                missing = 2.0 * (len(RATES) - i)  # nats that this rate does not carry
                log_likelihoods = TOP - missing - lost_nats + 5 * noise + own - own.mean()
                log_likelihoods -= 5 * noise.mean()
                null = NULL + 5 * noise if i == len(RATES) else None
            kept = SampleTable(ids, sizes, table, log_likelihoods, null)
            folder.append([replace(row, **changes)], kept)
    return path


def found(path: Path, special: str = "special") -> Costs:
    return costs(situations.load([path]), "general", special, metric_values_of=metric_values_of, n_resamples=300)


def one(path: Path, special: str = "special") -> Cost:
    (cost,) = found(path, special).costs
    return cost


def holds(n: Estimate, truth: float) -> bool:
    assert n.value is not None and n.low is not None and n.high is not None, n.reason
    return n.low - 1e-9 <= truth <= n.high + 1e-9


# ---------------------------------------------------------------------------------- planted effects
def test_planted_costs_are_found_with_their_size(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lift=-0.03, rate=1.5, lost_nats=4.0, seed=0)
    cost = one(tmp_path)
    assert cost.uncoded.value == pytest.approx(-0.03) and holds(cost.uncoded, -0.03)
    assert cost.information.value == pytest.approx(-4 / math.log(2))
    assert holds(cost.information, -4 / math.log(2))
    assert cost.information_general.value == pytest.approx(40 / math.log(2), rel=0.1)
    (coded,) = cost.coded
    assert (coded.extra_rate_percent.low or 0) > 50  # half as many again, and worse
    assert (coded.accuracy_at_equal_rate.high or 0) < -0.03
    assert verdict(cost.uncoded, True) == verdict(cost.information, True) == "cost"
    assert verdict(coded.extra_rate_percent, False) == "cost"


@pytest.mark.parametrize(("rest", "is_doubted"), [(25.0, True), (15.0, False)])
def test_a_cost_that_more_training_may_undo_says_so(rest: float, is_doubted: bool, tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", rate=1.25, codec_stop="steps", codec_rest=rest)
    whole = found(tmp_path)
    words = "more training of hyperprior on special may undo this"
    assert (words in tables.markdown(document(whole))) == is_doubted
    frame = document(whole).frame
    doubted = frame[frame["figure"] == "extra_rate_at_equal_accuracy"]["doubt"].iloc[0]
    assert doubted.startswith(words) if is_doubted else doubted == ""


def test_extra_bits_alone(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", rate=1.25)
    (coded,) = one(tmp_path).coded
    assert coded.extra_rate_percent.value == pytest.approx(25, abs=0.1)
    assert one(tmp_path).uncoded.value == pytest.approx(0, abs=1e-12)


def test_signs_where_lower_is_better(tmp_path: Path) -> None:
    """The special encoder's error is larger by 0.03: a cost."""
    plant(tmp_path, "general", higher_is_better=False)
    plant(tmp_path, "special", lift=0.03, higher_is_better=False)
    cost = one(tmp_path)
    assert cost.uncoded.value == pytest.approx(0.03)
    assert verdict(cost.uncoded, cost.higher_is_better) == "cost"


def test_an_encoder_against_itself_costs_nothing(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    cost = one(tmp_path, special="general")
    nothing = Estimate(0.0, 0.0, 0.0)
    assert cost.uncoded == cost.information == nothing
    assert cost.coded[0].extra_rate_percent == nothing
    assert cost.coded[0].accuracy_at_equal_rate == nothing


def test_seeds_are_averaged_and_drawn(tmp_path: Path) -> None:
    for seed, lift in ((0, -0.02), (1, -0.06)):
        plant(tmp_path, "general", seed=seed)
        plant(tmp_path, "special", lift=lift, seed=seed)
    whole = found(tmp_path)
    (cost,) = whole.costs
    assert cost.seeds == (0, 1) and not any("one seed" in n for n in whole.notes)
    assert cost.uncoded.value == pytest.approx(-0.04)
    low, high = cost.uncoded.low or 0, cost.uncoded.high or 0
    assert low < -0.055 and high > -0.025  # wider than either seed's own


# ---------------------------------------------------------------------------------------- efficiency
def test_efficiency_rises_with_the_rate_and_pays_less(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lost_nats=4.0)
    kept = [k for k in found(tmp_path).efficiency if k.encoder == "general"]
    assert len(kept) == len(RATES)
    assert [k.sent for k in kept] == sorted(k.sent for k in kept)
    bits = [k.kept.value or 0 for k in kept]
    assert bits == sorted(bits)
    assert kept[0].per_bit == pytest.approx(bits[0] / kept[0].sent)
    assert kept[0].per_bit > kept[-1].per_bit
    assert kept[-1].share.value == pytest.approx(38 / 40, abs=0.01)


def beside(path: Path, *changes: dict[str, str]) -> Costs:
    """Costs of the same coded points and ceilings under several names."""
    rows = situations.load([plant(plant(path, "general"), "special")])
    every = pd.concat([rows.assign(**c) for c in changes])
    every["objective"] = every["objective"].where(every["kind"] == "coded", "")
    once = every.drop_duplicates([*situations.SITUATION, *situations.POINT])
    return costs(once, "general", "special", "bpp", metric_values_of, 50)


def test_objectives_of_a_codec_are_curves_of_their_own(tmp_path: Path) -> None:
    whole = beside(tmp_path, {"objective": "mse"}, {"objective": "task"})
    assert {k.codec for k in whole.efficiency} == {"hyperprior, mse", "hyperprior, task"}
    assert len(cost_figure.draw(whole).axes[3].lines) == 4


# ----------------------------------------------------------------------------------- what is refused
def test_without_likelihoods_the_rest_stands(tmp_path: Path) -> None:
    plant(tmp_path, "general", lost_nats=None)
    plant(tmp_path, "special", lift=-0.03, lost_nats=None)
    whole = found(tmp_path)
    (cost,) = whole.costs
    assert cost.information.value is None and "no log-likelihoods" in cost.information.reason
    assert holds(cost.uncoded, -0.03) and not whole.efficiency
    assert any("left out" in note for note in whole.notes)
    assert any("one seed" in note for note in whole.notes)


def test_without_samples_the_values_stand_alone(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lift=-0.03)
    shutil.rmtree(tmp_path / SAMPLES)
    whole = found(tmp_path)
    (cost,) = whole.costs
    assert cost.uncoded.value == pytest.approx(-0.03) and cost.uncoded.low is None
    assert cost.coded[0].accuracy_at_equal_rate.value == pytest.approx(-0.03) and not whole.efficiency
    assert any("no samples of" in note for note in whole.notes)


def test_curves_that_do_not_overlap_are_refused_with_a_reason(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lift=-0.4)
    (coded,) = one(tmp_path).coded
    assert coded.extra_rate_percent.value is None
    assert "overlap" in coded.extra_rate_percent.reason
    assert coded.accuracy_at_equal_rate.value == pytest.approx(-0.4)


def test_different_seeds_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, "general", seed=0)
    plant(tmp_path, "special", seed=1)
    cost = one(tmp_path)
    assert "seeds" in cost.uncoded.reason and "seeds" in cost.information.reason


def test_different_samples_give_no_information(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    with ResultsFolder(plant(tmp_path, "special")) as folder:
        row = next(p for p in folder.points if p.point == "special5s0")
        ids = [f"t{i}" for i in range(N)]
        folder.append([row], SampleTable(ids, [9] * N, stats(0.48), np.zeros(N)))
    assert "different samples" in one(tmp_path).information.reason


@pytest.mark.parametrize(
    ("general", "special", "changes", "words"),
    [
        ("genral", "special", {}, "Did you mean 'general'"),
        ("general", "special", {"neck": "neck_4L"}, "share no task"),
        ("general", "special", {"task": "depth"}, "share no task"),
    ],
)
def test_refusals(tmp_path: Path, general: str, special: str, changes: dict, words: str) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", **changes)
    with pytest.raises(FcbenchError, match=words):
        costs(situations.load([tmp_path]), general, special)


def test_split_points_of_other_names_are_compared(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lift=-0.03, split="layer3")
    assert one(tmp_path).uncoded.value == pytest.approx(-0.03)


# ------------------------------------------------------------------------------------------- columns
def test_likelihoods_are_kept_beside_the_samples(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "silent", lost_nats=None)
    ceiling, coded, silent = (load_samples(tmp_path, key) for key in ("general5s0", "general0s0", "silent0s0"))
    assert ceiling.log_likelihood is not None and ceiling.null_log_likelihood is not None
    assert ceiling.log_likelihood.shape == ceiling.null_log_likelihood.shape == (N,)
    assert coded.log_likelihood is not None and coded.null_log_likelihood is None
    assert silent.log_likelihood is None

    def points(*keys: str) -> list[Point]:
        return [Point(str(tmp_path), key, 0.1, 0.4, 100) for key in keys]

    both = likelihoods(points("general5s0", "general0s0"))
    assert both is not None and both.log_likelihoods.shape == (2, N) and both.null is None
    assert list(both.ids) == sorted(both.ids)
    assert likelihoods(points("general5s0", "silent5s0")) is None
    for wrong in (np.full(N, np.nan), np.zeros(N + 1)):
        with ResultsFolder(tmp_path) as out:
            row = next(p for p in out.points if p.point == "general0s0")
            with pytest.raises(FcbenchError, match="one finite number per sample"):
                out.append([row], replace(coded, log_likelihood=wrong))


# -------------------------------------------------------------------------------------------- output
def test_tables_hold_every_figure(tmp_path: Path) -> None:
    plant(tmp_path, "general")
    plant(tmp_path, "special", lift=-0.03, lost_nats=4.0)
    whole = found(tmp_path)
    for text in (tables.terminal(document(whole)), tables.markdown(document(whole))):
        for word in ("special less general", "-0.0300", "cost", "usable bits", "Efficiency"):
            assert word in text
    assert tables.latex(document(whole)).count(r"\begin{tabular}") == 2
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated(document(whole)))))
    figures = {r["figure"]: r for r in lines}
    assert float(figures["uncoded_difference"]["value"]) == pytest.approx(-0.03)
    assert figures["information_difference"]["unit"] == "bit/sample"
    assert sum(r["figure"] == "information_kept" for r in lines) == 2 * len(RATES)
    again = json.loads(tables.as_json(document(whole)))["figures"]
    assert len(again) == len(lines)
    drawn = cost_figure.draw(whole)
    assert len(drawn.axes) == 4


def test_split_points_and_losses_of_the_neck_are_named_where_they_differ(tmp_path: Path) -> None:
    where = [("stage1", "task"), ("stage3", "task"), ("stage3", "distill")]
    whole = beside(tmp_path, *({"split": split, "neck_loss": loss} for split, loss in where))
    shown = document(whole)
    assert [t.title.split(" head, ")[1] for t in shown.tables[:-1]] == [f"{s}, {loss}, seed 0" for s, loss in where]
    assert shown.tables[-1].rows[0][0] == "segmentation, stage1, task"
    rows = shown.frame[["split", "neck_loss", "figure", "encoder", "params"]]
    assert not rows[rows["figure"].isin(["uncoded_difference", "share_kept"])].duplicated().any()
    fig = cost_figure.draw(whole)
    bars = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert len(set(bars)) == 3 and bars[0] == "segmentation (miou), stage1, task, hyperprior"
    assert len(fig.axes[3].lines) == 6


def test_command(tmp_path: Path) -> None:
    folder = plant(plant(tmp_path / "r", "general"), "special", lift=-0.03)
    args = ["cost", str(folder), "--general", "general", "--special", "special"]
    files = [str(tmp_path / f"c{suffix}") for suffix in (".csv", ".md", ".png")]
    done = CliRunner().invoke(main, args + [a for f in files for a in ("-o", f)])
    assert done.exit_code == 0, done.output
    assert all(Path(f).stat().st_size > 200 for f in files)
    shown = CliRunner().invoke(main, [*args, "--json"])
    assert len(json.loads(shown.stdout)["figures"]) > 8
    bad = CliRunner().invoke(main, [*args, "-o", "cost.docx"])
    assert bad.exit_code != 0 and "suffix must be one of" in bad.output
    same = CliRunner().invoke(main, [*args, "--special", "general"])
    assert same.exit_code != 0 and "give two encoders" in same.output
