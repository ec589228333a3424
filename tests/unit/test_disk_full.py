"""A full disk ends a run with one line; any other failure of a point is a row."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from fcbench.core import cache
from fcbench.core.errors import DiskFull, FcbenchError
from fcbench.core.files import disk_errors, write_atomically
from fcbench.data.scenes.chunks import Chunks
from fcbench.measure import point, run
from fcbench.measure.study import open_study
from fcbench.measure.suite import Suite
from fcbench.training import loop
from fcbench.training.options import Budget


def no_room(*args: Any, **named: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hidden() -> NoReturn:
    """A full disk behind an error of another kind."""
    try:
        no_room()
    except OSError as error:
        raise FcbenchError(f"cannot write my file: {error.strerror}") from None


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_an_error_of_the_disk_says_whether_it_is_full(number: int, full: bool, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="give another --cache-dir") as caught, disk_errors(
        tmp_path, "give another --cache-dir"
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, DiskFull) == full and ("disk full" in str(caught.value)) == full


@pytest.mark.parametrize("call", [no_room, hidden])
def test_a_point_that_finds_no_room_ends_the_run(call: Callable[[], NoReturn]) -> None:
    failed: dict[str, str] = {}
    with pytest.raises(DiskFull, match="^disk full: .*No space left"):
        point.attempt(call, ["depth"], failed)
    assert not failed


def test_any_other_failure_is_a_reason() -> None:
    failed: dict[str, str] = {}
    assert point.attempt(lambda: 1 // 0, ["depth"], failed) is None
    assert failed == {"depth": "ZeroDivisionError: integer division or modulo by zero"}


def test_scenes_that_find_no_room_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskFull, match="No space left.*--cache-dir"):
        Chunks(tmp_path / "scenes", "train", (32, 32)).make([0])
    assert not any((tmp_path / "scenes").iterdir())


def test_a_cache_without_room_for_models_trains_one_readout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite(
        codecs=("uniform",),
        encoders=("hiera_nano",),
        tasks=("depth", "segmentation"),
        weights="random",
        n_train=8,
        n_test=4,
        image_size_px=(32, 32),
        budget=Budget(task_steps=1, task_batch=4, width=32),
    )
    study, trained = open_study(suite, tmp_path / "cache", torch.device("cpu")), []
    optimize, put = loop.optimize, cache.put

    def counted(*args: Any, **named: Any) -> Any:
        trained.append(1)
        return optimize(*args, **named)

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith("task-"):
            with disk_errors(path):
                no_room()
        put(path, data)

    monkeypatch.setattr(loop, "optimize", counted)
    monkeypatch.setattr(cache, "put", full)
    with pytest.raises(DiskFull, match="models.*No space left"):
        run.measure(study, tmp_path / "out")
    assert len(trained) == 1
    assert not (tmp_path / "out" / "rates.csv").exists()
    assert not list((tmp_path / "out").glob(".streams-*"))


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FcbenchError, match="not a regular file"):
        write_atomically(tmp_path / "pipe", b"data")
    assert (tmp_path / "pipe").is_fifo()
