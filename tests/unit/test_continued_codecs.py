"""A codec that goes on from another operating point's weights: the same codec there, its gain moved here."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fcbench.core import cache, registry
from fcbench.core.cache import Cache
from fcbench.core.codecs import OperatingPoint
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.progress import Report
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.source import Readable, Source, Split
from fcbench.measure.points import starts_of
from fcbench.measure.suite import Suite
from fcbench.testing.fake_data import FakeDataset
from fcbench.testing.maps import statistics
from fcbench.training import codec as codec_module
from fcbench.training import loop
from fcbench.training.codec import CodecRecipe
from fcbench.training.convergence import CAP, Gain, Look, Record
from fcbench.training.options import Budget

X = torch.randn(12, 6, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 3, 6)[:, None, None]
CPU = torch.device("cpu")
CONTINUED = [n for n in registry.names("codec") if registry.get("codec", n).continued]


def built(name: str, lmbda: float) -> Any:
    torch.manual_seed(1)
    return registry.get("codec", name).build([FeatureSpec("s", 6, 16)], {"s": statistics(X)}, {"lmbda": lmbda})


def fresh(name: str, lmbda: float) -> Any:
    codec = built(name, lmbda)
    codec.prepare([X])
    return codec


def trained(name: str, lmbda: float) -> Any:
    """A frozen codec whose weights are not those of the closed form."""
    codec = fresh(name, lmbda)
    with torch.no_grad():
        for i, parameter in enumerate(codec.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter += 0.02 * noise
    codec.freeze()
    return codec


def test_every_trained_codec_of_one_rate_continues() -> None:
    assert {"hyperprior", "factorized", "elic", "checkerboard", "scale_hyperprior", "strata"} <= set(CONTINUED)
    assert not registry.get("codec", "gained_hyperprior").continued


@pytest.mark.parametrize("name", CONTINUED)
def test_at_the_same_point_it_is_the_trained_codec(name: str) -> None:
    """It needs no preparation: it takes everything from the other one."""
    start, codec = trained(name, 1.0), built(name, 1.0)
    codec.continue_from(start, 1.0, 1.0, [X])
    codec.freeze()
    mine, theirs = codec.state_dict(), start.state_dict()
    assert all(torch.allclose(mine[key].double(), theirs[key].double(), atol=1e-4) for key in theirs)


@pytest.mark.parametrize("name", CONTINUED)
def test_at_a_higher_rate_it_spends_more_and_loses_less(name: str) -> None:
    """Before any training here: a factor of 16 in lmbda is one of 4 in the gain, about two bits per scalar."""
    start, codec = trained(name, 4.0), built(name, 64.0)
    codec.continue_from(copy.deepcopy(start), 4.0, 64.0, [X])
    codec.freeze()
    with torch.no_grad():
        (near, few), (nearer, more) = ((d["s"], b) for d, b in (start({"s": X}), codec({"s": X})))
    assert 1.0 < float((more - few).mean()) / X[0].numel() < 2.5
    assert (nearer - X).square().mean() < 0.6 * (near - X).square().mean()


@pytest.mark.parametrize("name", ["factorized", "hyperprior", "elic"])
def test_few_features_are_corrected_as_in_the_training_that_it_goes_on_from(name: str) -> None:
    """The correction is noise in training, no weight: the trained codec does not hold it."""
    for x, is_few in ((X[:6], True), (X, False)):
        start, codec = built(name, 1.0), built(name, 4.0)
        start.prepare([x])
        corrections = [c.map_coders[0].g_a.correction for c in (start, codec)]
        codec.continue_from(copy.deepcopy(start), 1.0, 4.0, [x])
        assert [bool(c.rows.numel()) for c in corrections] == [is_few, is_few]
        for a, b in zip(*(c.buffers() for c in corrections)):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["hyperprior", "elic"])
def test_latents_means_and_scales_grow_alike(name: str) -> None:
    codec = fresh(name, 1.0)
    coder, factor = codec.map_coders[0], 2.0
    with torch.no_grad():
        z, y = coder.analyze_whole(X)
        means, log_scales = coder.net.begin(z, (4, 4))
        coder.rescale(0.6931)
        z_after, y_after = coder.analyze_whole(X)
        means_after, log_scales_after = coder.net.begin(z_after, (4, 4))
    assert torch.allclose(z_after, z, atol=1e-3) and torch.allclose(y_after, factor * y, atol=1e-2)
    assert torch.allclose(means_after, factor * means, atol=1e-2)
    assert (log_scales_after - log_scales).numpy() == pytest.approx(0.6931, abs=1e-3)


def test_the_middle_point_starts_by_itself_and_the_others_from_their_neighbour_toward_it() -> None:
    suite = Suite(codecs=("hyperprior", "gained_hyperprior", "uniform"))
    points = [p for p in registry.get("codec", "hyperprior").sweep("mse")]
    assert [p["lmbda"] for p in points] == [0.12, 0.3, 0.8, 2.0, 6.0, 20.0]
    starts = [[s.params["lmbda"] for s in starts_of(suite, OperatingPoint("hyperprior", p))] for p in points]
    assert starts == [[0.3, 0.8, 2.0], [0.8, 2.0], [2.0], [], [2.0], [6.0, 2.0]]
    assert starts_of(suite, OperatingPoint("gained_hyperprior", {"lmbda": 0.3})) == ()
    assert starts_of(suite, OperatingPoint("uniform", {"bits": 4})) == ()


def test_a_point_is_another_one_where_it_goes_on_from_others() -> None:
    """Its key holds all that it depends on: with more points in its sweep it has another neighbour."""

    def starts(*lmbdas: float) -> list[float]:
        suite = Suite(codecs=("strata",), params={"strata": tuple({"lmbda": v} for v in lmbdas)})
        return [float(p.params["lmbda"]) for p in starts_of(suite, OperatingPoint("strata", {"lmbda": 0.1}))]

    assert starts(0.1) == [] and starts(0.1, 1.0, 9.0) == [1.0] and starts(0.1, 0.5, 1.0, 3.0, 9.0) == [0.5, 1.0]


def test_whole_lmbdas_start_from_the_points_of_the_suite() -> None:
    """1 and 1.0 are different operating points: with the other kind each would be trained twice."""
    points = ({"lmbda": 1}, {"lmbda": 2}, {"lmbda": 4.0}, {"lmbda": 8})
    suite = Suite(codecs=("hyperprior",), params={"hyperprior": points})
    starts = starts_of(suite, OperatingPoint("hyperprior", points[0]))
    assert repr([p.params["lmbda"] for p in starts]) == "[2, 4.0]"


def source_of(x: torch.Tensor) -> Source:
    """A source with maps of 6 channels for training and test."""
    samples = tuple(SampleInfo(str(i), i, (32, 32)) for i in range(len(x)))
    features = FeatureSet("key", samples, (), (32, 32), {"s": FeatureSpec("s", 6, 4)}, {"s": (8, 8)}, {"s": x})
    split = Split(Readable(FakeDataset(len(x)), range(len(x))), features)
    encoder: Any = SimpleNamespace(name="e", weights=WeightsInfo("00" * 32, "embedded"))
    return Source(encoder, ("s",), "s", split, split, {"s": statistics(x)})


def test_few_features_are_all_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise for what part of them does not show is too strong where training also sees the rest."""
    recipe = CodecRecipe(source_of(X), OperatingPoint("hyperprior", {"lmbda": 1.0}), Budget(), seed=0)
    (seen,) = codec_module._all_features(recipe)
    assert len(seen) == len(loop.held_out(len(X))[0])
    monkeypatch.setattr(codec_module, "PREPARE_SAMPLES", len(seen) - 1)
    assert codec_module._all_features(recipe) == [] and len(codec_module._first_features(recipe)[0]) == len(seen) - 1


def test_a_point_goes_on_from_its_neighbour_where_the_first_one_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[int]()

    def untrained(codec: Any, lmbdas: Any, maps: Any, stats: Any, budget: Budget, **_: Any) -> Record:
        steps.append(budget.codec_steps)
        return Record(budget.codec_steps, 0.0, CAP, Gain(0.0, 0.0), (Look(budget.codec_steps, 0.0, 1.0, 1.0),))

    monkeypatch.setattr(codec_module, "fit_codec", untrained)
    source = source_of(X)
    low, middle, first = (OperatingPoint("factorized", {"lmbda": v}) for v in (0.5, 1.0, 2.0))
    kept, budget = Cache(tmp_path).make(), Budget(codec_steps=10)
    neighbour = CodecRecipe(source, middle, budget, seed=0, starts=(first,))
    codec_module.make_codec(neighbour, kept, Report(0), CPU)
    assert neighbour.start
    cache.remove(neighbour.start.path(kept))
    codec_module.make_codec(CodecRecipe(source, low, budget, 0, starts=(middle, first)), kept, Report(0), CPU)
    assert steps == [10, 3, 3]
