"""The training loop: resumes to the same weights, refuses to diverge, keeps what it must freeze."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcbench.core import cache
from fcbench.core.cache import digest
from fcbench.core.codecs import OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.statistics import normalized_mse
from fcbench.training import codec, loop
from fcbench.training.codec import CodecRecipe
from fcbench.training.convergence import Record
from fcbench.training.options import Budget

TRAINING: dict[str, Any] = {"steps": 30, "rate": 0.1, "tolerance": 0.0, "seed": 0}


def regression(module: nn.Module):  # type: ignore[no-untyped-def]
    def loss_of(rng: np.random.Generator) -> Tensor:
        x = torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))
        loss: Tensor = (module(x) - x.sum(1, keepdim=True) + torch.randn(())).square().mean()
        return loss

    return loss_of


def train(path: Path, steps: int = 12, **options: object) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    loss_of = regression(module)
    settings: dict[str, Any] = {"steps": steps, "rate": 0.1, "tolerance": 0.0, "seed": 3, "resume": path, **options}
    loop.optimize(module, loss_of, lambda: of_fixed(module), **settings)
    return module


def of_fixed(module: nn.Module) -> tuple[float, float]:
    """Loss of inputs that are the same each time."""
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    loss = float((module(x) - x.sum(1, keepdim=True)).square().mean())
    return loss, loss


@pytest.mark.parametrize(("steps", "at"), [(12, 7), (1000, 100), (1000, 300)])
def test_interrupted_training_gives_the_same_weights(
    steps: int, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first look at the validation loss, between two, and in the tail after a plateau (at 256)."""
    options: dict[str, Any] = {"steps": steps, "tolerance": 0.5}
    whole = train(tmp_path / "a", **options)
    totals = list[int]()

    def stop(done: int, total: int) -> None:
        totals.append(total)
        if done == at - 1:
            monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)  # the next step is saved
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", advance=stop, **options)
    assert (tmp_path / "b").exists() and (totals[-1] < steps) == (at == 300)
    monkeypatch.undo()
    resumed = train(tmp_path / "b", **options)
    assert torch.equal(whole.weight, resumed.weight)  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()


def test_training_learns(tmp_path: Path) -> None:
    weight = train(tmp_path / "a", steps=300).weight
    assert torch.allclose(weight, torch.ones(1, 3), atol=0.2)  # type: ignore[arg-type]


def test_divergence_is_an_error(tmp_path: Path) -> None:
    module = nn.Linear(3, 1)
    with pytest.raises(FcbenchError, match="diverged at step 0"):
        loop.optimize(
            module,
            lambda rng: module.weight.sum() * float("nan"),
            lambda: of_fixed(module),
            **TRAINING,
            resume=tmp_path / "a",
        )


def test_a_damaged_checkpoint_is_thrown_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_bytes(b"not a checkpoint")
    damaged, fresh = train(tmp_path / "a"), train(tmp_path / "b")
    assert "a is damaged" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(damaged.parameters(), fresh.parameters(), strict=True))


def test_a_checkpoint_of_another_training_is_an_error(tmp_path: Path) -> None:
    cache.put(tmp_path / "a", b"not a checkpoint")
    with pytest.raises(FcbenchError, match="is not of this training"):
        train(tmp_path / "a")


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [loop.schedule(i, 100, 1.0) for i in range(100)]
    assert rates[:30] == sorted(rates[:30]) and 0 < rates[0] < 0.05 and set(rates[29:80]) == {1.0}
    assert all(a > b for a, b in zip(rates[80:], rates[81:])) and 0 < rates[-1] < 0.1
    assert 0 < loop.schedule(0, 1, 1.0) < 0.05
    for step in range(1, 400):
        assert abs(loop.turn(loop.end_after(step)) - step) <= 1


def test_sampling_repeats_only_where_it_must() -> None:
    rng = np.random.default_rng(0)
    assert len(set(loop.sample_indices(rng, range(10), 10))) == 10
    assert len(loop.sample_indices(rng, range(3), 10)) == 10


def test_a_batch_of_a_large_set_comes_from_few_blocks() -> None:
    drawn = np.zeros(1000, dtype=int)
    for seed in range(2000):
        batch = loop.sample_indices(np.random.default_rng(seed), range(1000), 32, 64)
        assert batch == sorted(set(batch)) and len({i // 64 for i in batch}) <= loop.BLOCKS_PER_BATCH
        drawn[batch] += 1
    assert 30 < drawn.min() and drawn.max() < 130  # 64 expected of each
    assert len(set(loop.sample_indices(np.random.default_rng(0), range(1000), 700, 64))) == 700
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    assert loop.sample_indices(one, range(50), 8, 50) == loop.sample_indices(other, range(50), 8)


@pytest.mark.parametrize("n", [2, 3, 15, 100, 2000])
def test_held_out_samples_are_never_trained_on(n: int) -> None:
    train, validation = loop.held_out(n)
    assert sorted(train + validation) == list(range(n)) and 1 <= len(validation) <= len(train)
    assert loop.held_out(n) == (train, validation)
    for seed in range(50):
        assert not set(loop.sample_indices(np.random.default_rng(seed), train, 4, 64)) & set(validation)


def test_a_flat_loss_ends_a_training_and_a_falling_one_does_not(tmp_path: Path) -> None:
    """The learning rate then falls over a fifth of all steps."""

    def trained(loss_after: Callable[[int], float], name: str) -> Record:
        module, done = nn.Linear(3, 1), [0]

        def loss_of(rng: np.random.Generator) -> Tensor:
            done[0] += 1
            return module.weight.square().sum()

        options = {**TRAINING, "steps": 1000, "tolerance": 0.01, "resume": tmp_path / name}
        return loop.optimize(module, loss_of, lambda: (loss_after(done[0]), 1.0), **options)

    flat = trained(lambda step: 1 + max(0, 100 - step) / 100, "flat")
    assert (flat.stop, flat.steps) == ("plateau", 269) and flat.curve[-2].step == 256  # flat from 107 to 215
    falling = trained(lambda step: 1000.0 - step, "falling")
    assert (falling.stop, falling.steps, falling.loss) == ("steps", 1000, 0.0)


def test_the_weights_kept_are_the_averaged_ones_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    module, seen = nn.Linear(1, 1, bias=False), list[float]()
    nn.init.constant_(module.weight, 10.0)

    def validate() -> tuple[float, float]:
        assert not module.training
        seen.append(module.weight.item())  # the average: behind the weights, which fall
        return (abs(seen[-1] - 9.0), 1.0)

    raw = list[float]()

    def loss_of(rng: np.random.Generator) -> Tensor:
        assert module.training
        raw.append(module.weight.item())
        return module.weight.sum()

    options = {**TRAINING, "steps": 64, "resume": tmp_path / "a"}
    record = loop.optimize(module, loss_of, validate, **options)
    assert module.weight.item() == min(seen, key=lambda w: abs(w - 9.0)) and record.loss == min(
        abs(w - 9) for w in seen
    )
    assert all(average > raw[-1] for average in seen) and len(seen) == len(record.curve) == 5


def test_normalized_mse_is_one_at_the_mean() -> None:
    """Replacing features by their mean costs their variance: 1 in units of the standard deviation."""
    x = torch.randn(200, 5, 4, 4) * torch.arange(1, 6).view(-1, 1, 1)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), unbiased=False)
    stats = {"s": FeatureStats(mean, std, x.amin((0, 2, 3)), x.amax((0, 2, 3)))}
    flat = mean.view(-1, 1, 1).expand_as(x)
    assert float(normalized_mse({"s": x}, {"s": flat}, stats)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_divergence_is_found_between_two_looks_at_the_loss(tmp_path: Path, fails: bool) -> None:
    """The error names the step at which it began, also where what diverged fails by itself later."""
    module, done = nn.Linear(3, 1), list[int]()

    def loss_of(rng: np.random.Generator) -> Tensor:
        step = len(done)
        done.append(step)
        if fails and step == 5:
            raise RuntimeError("not a number")
        return module.weight.sum() * (float("nan") if step == 3 else 1)

    with pytest.raises(FcbenchError, match="diverged at step 3 of 30"):
        loop.optimize(module, loss_of, lambda: of_fixed(module), **TRAINING, resume=tmp_path / "a")
    assert len(done) <= loop.READ_EVERY


@pytest.mark.parametrize("every", [1, 5, 1000])
def test_looking_at_the_loss_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    expected = train(tmp_path / "a", steps=12).weight
    monkeypatch.setattr(loop, "READ_EVERY", every)
    assert torch.equal(train(tmp_path / "b", steps=12).weight, expected)  # type: ignore[arg-type]


def test_another_error_is_not_taken_for_divergence(tmp_path: Path) -> None:
    def loss_of(rng: np.random.Generator) -> Tensor:
        raise FcbenchError("a bad target")

    with pytest.raises(FcbenchError, match="a bad target"):
        loop.optimize(nn.Linear(3, 1), loss_of, lambda: (1.0, 1.0), **TRAINING, resume=tmp_path / "a")


def test_an_untrained_codec_is_the_same_for_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its key says; more samples than it is prepared on."""
    monkeypatch.setattr(codec, "PREPARE_SAMPLES", 5)
    samples = tuple(SampleInfo(str(i), i, (8, 8)) for i in range(40))
    x, spec = torch.arange(40.0).view(-1, 1, 1, 1), FeatureSpec("s", 1, 8)
    source: Any = SimpleNamespace(
        train=SimpleNamespace(features=FeatureSet("k", samples, (), (8, 8), {"s": spec}, {"s": (1, 1)}, {"s": x}))
    )
    for name, params in (("pq", {"dims": 4, "bits": 4}), ("factorized", {"lmbda": 1.0})):
        recipes = [CodecRecipe(source, OperatingPoint(name, params), Budget(), seed) for seed in (0, 1)]
        drawn = {tuple(codec._first_features(recipe)[0].flatten().tolist()) for recipe in recipes}
        assert len(drawn) == len({digest(recipe.contents) for recipe in recipes}) == (1 if name == "pq" else 2)
