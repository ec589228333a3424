"""Costs and times of stages."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcbench.core.cache import Cache
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.measure import complexity
from fcbench.testing.fake_data import FakeDataset

CPU = torch.device("cpu")


def test_the_first_sample_warms_up() -> None:
    called = list[int]()

    def call(i: int) -> None:
        called.append(i)
        time.sleep(0.001 if called[1:] else 0.3)

    assert 1 <= complexity.latency_ms(call, 9, CPU) < 150
    assert called == list(range(9))


def test_slow_stages_are_timed_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[int]()
    monkeypatch.setattr(complexity, "ENOUGH_MS", 0.0)
    complexity.latency_ms(called.append, 9, CPU)
    assert called == [0, 1], "one to warm up, one to time"
    assert complexity.latency_ms(called.append, 1, CPU) >= 0


def source(encoder: Any, *sizes_px: tuple[int, int]) -> Any:
    """Samples of images of several sizes."""
    samples = tuple(SampleInfo(str(i), i, size_px) for i, size_px in enumerate(sizes_px))
    features = FeatureSet("key", samples, (), (32, 32), {"s": FeatureSpec("s", 1, 16)}, {"s": (2, 2)}, {})
    test = SimpleNamespace(features=features, dataset=FakeDataset(len(samples)))
    return SimpleNamespace(encoder=encoder, split_points=("s",), test=test)


def test_operations_are_per_pixel_of_all_images(tmp_path: Path) -> None:
    """In whatever order they come."""
    for sizes_px in (((10, 10), (30, 10)), ((30, 10), (10, 10))):
        cost = complexity.Complexity(source(None, *sizes_px), Cache(tmp_path), CPU)
        assert cost.kmac_per_px(400_000) == 2.0


def test_operations_are_counted_again_after_a_change_of_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Encoder:
        name, weights, module = "e", WeightsInfo("00" * 32, "embedded"), nn.Linear(3, 5)

        def __init__(self, n_rows: int) -> None:
            self.n_rows = n_rows

        def __call__(self, images: Tensor, split_points: object) -> Tensor:
            out: Tensor = self.module(torch.zeros(self.n_rows, 3))
            return out

    monkeypatch.setattr(complexity, "macs", lambda call: 15 * len(call()))
    monkeypatch.setattr(complexity, "code_of", lambda encoder: {"code": f"of {encoder.n_rows} rows"})
    costs = [complexity.Complexity(source(Encoder(n), (32, 32)), Cache(tmp_path).make(), CPU) for n in (1, 2)]
    assert [c.of_encoder()["encoder"].n_macs for c in costs] == [15, 30]
