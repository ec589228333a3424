"""Cells of frequencies and components, errors planted in them, and the study of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from benchmarks.errors import Cells, Measured, Reading, at_equal_snr, ideal, main
from fcbench.core.codecs import Kind, OperatingPoint
from fcbench.measure.points import Job
from fcbench.testing.maps import correlated, statistics

N_SAMPLES, GRID = 200, (8, 10)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return correlated(N_SAMPLES, 6, GRID, 0)


@pytest.fixture(scope="module")
def cells(x: Tensor) -> Cells:
    return Cells(x, statistics(x))


def test_cells_hold_all_of_the_features(x: Tensor, cells: Cells) -> None:
    y = cells.analyze(x)
    torch.testing.assert_close(cells.synthesize(y), x, rtol=1e-4, atol=1e-3)
    normalized = (x - cells.mean) / cells.std
    assert float(cells.shares(cells.energy(y)).sum()) == pytest.approx(float(normalized.square().mean()), rel=1e-4)
    by_component = cells.shares(cells.energy(y)).sum(dim=0)
    assert torch.equal(by_component.sort(descending=True).indices, torch.arange(6))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0, 1.5])
def test_planted_errors_have_the_asked_energy_in_each_cell(share: float, x: Tensor, cells: Cells) -> None:
    y = cells.analyze(x)
    signal = cells.energy(y)
    of_cells = share * torch.linspace(0.2, 1.0, signal.numel()).view_as(signal)
    error = of_cells * signal
    found = cells.energy(ideal(y, signal, error, cells, torch.Generator().manual_seed(0)) - y)
    torch.testing.assert_close(found, error, rtol=0.35, atol=1e-6)  # the rarest cells have 200 coefficients
    assert float(cells.shares(found).sum()) == pytest.approx(float(cells.shares(error).sum()), rel=0.03, abs=1e-6)


def test_the_study_reads_what_codecs_decode_and_what_is_planted(tmp_path: Path) -> None:
    args = f"--quick --codec factorized --lambdas 0.05,20 --task segmentation --out {tmp_path} --cache-dir {tmp_path}/c"
    done = CliRunner().invoke(main, args.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    table, spectra = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("errors", "spectra"))
    assert list(table["lmbda"]) == [0.05, 20.0] and (tmp_path / "errors.png").exists()
    assert table["bpp"].is_monotonic_increasing and table["feature_snr"].is_monotonic_increasing
    gap = (table["uncoded"] - table["decoded"]).abs()
    assert gap[1] < gap[0], "fewer errors cost less"
    for rest in ("decoded_less_planted", "decoded_less_placed"):
        assert ((table[f"{rest}_low"] <= table[rest]) & (table[rest] <= table[f"{rest}_high"])).all()
    assert (spectra["error"] < 1.5 * spectra["signal"]).all()


def test_differences_at_equal_snr_are_those_between_the_curves() -> None:
    found = []
    for codec, lift in (("a", 0.0), ("b", 0.2)):
        for snr in (4.0, 8.0, 12.0):
            job = Job(Kind.CODED, OperatingPoint(codec, {"lmbda": snr}), ("t",))
            at = snr + (1.0 if codec == "b" else 0.0)  # other rates: the curves are compared where both are
            value = 0.1 * at + lift
            values = dict.fromkeys(("decoded", "planted", "placed"), value)
            draws = {name: np.full(9, value) for name in values}
            found.append(Reading(Measured(job, 0.1, torch.ones(1, 1), 0.5), at, "t", "m", values, draws))
    (record,) = at_equal_snr(found)
    assert [record["codec"], record["less"], record["task"]] == ["b", "a", "t"]
    for name in ("decoded", "planted", "placed"):
        assert [record[f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.2] * 3)
