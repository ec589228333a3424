"""Weights of a pyramid's maps follow what an error in each costs the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fcbench.core.cache import Cache
from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.features import feature_set
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.statistics import normalized_mse, stats_of
from fcbench.training import codec, levels
from fcbench.training.codec import CodecRecipe
from fcbench.training.options import Budget
from fcbench.training.readout import TaskLoss

SPECS = {"fine": FeatureSpec("fine", 4, 8), "coarse": FeatureSpec("coarse", 6, 16)}
GRIDS = {"fine": (4, 4), "coarse": (2, 2)}
N_SCALARS = {"fine": 64, "coarse": 24}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    torch.manual_seed(0)
    arrays = {name: 3.0 * torch.randn(80, spec.channels, *GRIDS[name]) for name, spec in SPECS.items()}
    return FeatureSet("levels", _samples(80), (), (32, 32), SPECS, GRIDS, arrays)


def _samples(n: int) -> tuple[SampleInfo, ...]:
    return tuple(SampleInfo(str(i), i, (32, 32)) for i in range(n))


def errors(features: FeatureSet, stats: Mapping[str, FeatureStats], costs: Mapping[str, float]) -> TaskLoss:
    """A task that loses `costs` for each scalar's squared error of one standard deviation, summed over a map."""

    def loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        clean = features.batch(indices)
        lost = [costs[n] * N_SCALARS[n] * normalized_mse({n: clean[n]}, {n: maps[n]}, stats) for n in maps]
        return 0.7 + torch.stack(lost).sum()

    return loss


def weights(features: FeatureSet, costs: Mapping[str, float]) -> dict[str, float]:
    stats = stats_of(features)
    return levels.weights_of(features, stats, errors(features, stats, costs), 16, CPU)


def test_weights_are_what_an_error_costs_with_a_mean_of_one(features: FeatureSet) -> None:
    found = weights(features, {"fine": 1.0, "coarse": 5.0})
    assert found["coarse"] / found["fine"] == pytest.approx(5.0, rel=0.05)
    assert sum(N_SCALARS[n] * w for n, w in found.items()) / sum(N_SCALARS.values()) == pytest.approx(1.0)


def test_no_more_samples_are_read_than_fit_into_memory(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    stats, read = stats_of(features), set[int]()
    plain = errors(features, stats, {"fine": 1.0, "coarse": 5.0})

    def loss(maps: Mapping[str, Tensor], indices: Sequence[int]) -> Tensor:
        read.update(indices)
        return plain(maps, indices)

    monkeypatch.setattr(feature_set, "RAM_LIMIT_BYTES", 10 * features.n_bytes // len(features))
    levels.weights_of(features, stats, loss, 4, CPU)
    assert len(read) == 10


def test_weights_are_found_once_for_all_points(
    features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, found = stats_of(features), list[Mapping[str, float]]()
    loss = errors(features, stats, {"fine": 1.0, "coarse": 5.0})

    def counted(*_: object) -> Mapping[str, float]:
        found.append({"fine": 0.3, "coarse": 4.0})
        return found[-1]

    monkeypatch.setattr(levels, "weights_of", counted)
    source: Any = SimpleNamespace(train=SimpleNamespace(features=features), stats=stats)

    def std(lmbda: float, task: str) -> Tensor:
        readout: Any = SimpleNamespace(key=task)
        recipe = CodecRecipe(source, OperatingPoint("factorized", {"lmbda": lmbda}), Budget(), 0, "levels", readout)
        return codec._stats(recipe, Cache(tmp_path).make(), CPU, loss)["fine"].std

    assert torch.equal(std(1.0, "depth"), std(2.0, "depth")) and len(found) == 1
    assert torch.equal(std(1.0, "depth"), stats["fine"].std / 0.3**0.5)
    std(1.0, "pose")
    assert len(found) == 2


def test_a_map_that_the_task_does_not_read_keeps_the_least_weight(features: FeatureSet) -> None:
    found = weights(features, {"fine": 0.0, "coarse": 2.0})
    assert found["fine"] == levels.LEAST and found["coarse"] == pytest.approx(88 / 24, rel=1e-3)


def test_a_task_that_gains_by_every_error_is_refused(features: FeatureSet) -> None:
    with pytest.raises(FcbenchError, match="an error in no map raises the task's loss"):
        weights(features, {"fine": -1.0, "coarse": 0.0})


def test_weighted_statistics_weigh_the_error(features: FeatureSet) -> None:
    stats, of_map = stats_of(features), {"fine": 0.25, "coarse": 4.0}
    maps = features.batch(range(8))
    noisy = {name: x + torch.randn_like(x) for name, x in maps.items()}
    for name, weight in of_map.items():
        one = {name: maps[name]}, {name: noisy[name]}
        plain, heavy = (normalized_mse(*one, s) for s in (stats, levels.weighted(stats, of_map)))
        assert float(heavy / plain) == pytest.approx(weight, rel=1e-5)


def test_the_planted_error_is_that_of_an_ideal_codec() -> None:
    """Of correlated channels it leaves out the directions of least variance, and adds up to the stated share."""
    torch.manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(6, 6))[0] @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.1, 0.05, 0.02]))
    x = 5 + torch.einsum("dc,bchw->bdhw", mixing, torch.randn(64, 6, 4, 4))
    stats = stats_of(
        FeatureSet("x", _samples(64), (), (32, 32), {"x": FeatureSpec("x", 6, 8)}, {"x": (4, 4)}, {"x": x})
    )
    got = levels._decoded(x, stats["x"], torch.Generator().manual_seed(0))
    assert float(normalized_mse({"x": x}, {"x": got}, stats)) == pytest.approx(levels.DISTORTION, rel=0.1)
    left = (got - got.mean((0, 2, 3), keepdim=True)).transpose(0, 1).flatten(1)
    kept = torch.linalg.eigvalsh(left @ left.T)
    assert (kept[:3] < 1e-6 * kept[-1]).all(), "three directions are not sent"
