"""Worker processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.core.errors import FcbenchError
from fcbench.core.processes import peak_bytes, workers
from fcbench.measure import executors
from fcbench.measure.executors import ATTEMPTS, DIED, Workers
from fcbench.measure.graph import Makes, Node
from fcbench.measure.suite import Suite
from fcbench.measure.workshop import Outcome


def _die() -> None:
    os._exit(3)


def _refuse() -> None:
    raise FcbenchError("no such thing")


def _print() -> int:
    print("to nobody", flush=True)
    print("to nobody", file=sys.stderr, flush=True)
    return os.getpid()


def test_errors_come_back_by_value() -> None:
    with pytest.raises(FcbenchError, match="^no such thing$"), workers(1, "refuse") as pool:
        pool.submit(_refuse).result()


def test_a_worker_that_dies_is_one_line() -> None:
    with pytest.raises(FcbenchError, match="a process to die died: a script must call"), workers(1, "die") as pool:
        pool.submit(_die).result()


def test_workers_print_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with workers(1, "print") as pool:
        assert pool.submit(_print).result() != os.getpid()
    assert capfd.readouterr() == ("", "")


def test_the_peak_of_a_call_is_what_it_adds() -> None:
    def call() -> None:
        np.ones(64 << 17)  # float64

    found = [peak_bytes(call) for _ in range(2)]  # the second time the allocator has what the first one freed
    if None in found:
        pytest.skip("only Linux with glibc can say")
    assert all(60e6 < n < 80e6 for n in found if n is not None), found
    assert (peak_bytes(lambda: None) or 0) < 1e6


def _executed(monkeypatch: pytest.MonkeyPatch, submits: Sequence[Exception | None], restarts: Any = None) -> Outcome:
    """A node's outcome from a process whose submissions raise, or do not, and whose restarts may raise."""
    left = list(submits)

    class Slot(SimpleNamespace):
        closed = False

        def submit(self, *_: object) -> Future[Outcome]:
            done = Future[Outcome]()
            if (error := left.pop(0)) is not None:
                raise error
            done.set_result(Outcome(1.0, "done"))
            return done

        def restart(self) -> None:
            if restarts:
                raise restarts

    monkeypatch.setattr(executors, "_Slot", lambda *_: Slot())
    parts: dict[str, Any] = {"cache": SimpleNamespace(root=Path()), "coders": SimpleNamespace(n=1)}
    study: Any = SimpleNamespace(suite=Suite(), device=torch.device("cpu"), **parts)
    report: Any = None
    pool = Workers(1, 1, study, Path(), False, report)
    return pool.submit(Node("key", Makes.READOUT, "readout", "encoder"), {}).result(10)


def test_a_process_that_died_while_idle_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    died = BrokenProcessPool("died")
    assert _executed(monkeypatch, [died, None]).line == "done"
    assert _executed(monkeypatch, [died] * ATTEMPTS).reason == DIED


def test_a_process_that_cannot_be_replaced_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    died, full = BrokenProcessPool("died"), OSError("no memory")
    with pytest.raises(OSError, match="no memory"):
        _executed(monkeypatch, [died], full)
    with pytest.raises(OSError, match="no memory"):
        _executed(monkeypatch, [died, full])
