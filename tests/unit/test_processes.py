"""Worker processes."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from fcbench.core.errors import FcbenchError
from fcbench.core.processes import peak_bytes, workers


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
