"""Times of stages."""

from __future__ import annotations

import time

import pytest
import torch

from fcbench.measure import complexity

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
