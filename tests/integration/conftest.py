"""A tiny run, small enough for seconds: one cache and one results folder shared by the tests that only read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import TINY

from fcbench.cli.main import main

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def fcbench() -> Run:
    """The command line in this process."""

    def call(*args: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in args])

    return call


@pytest.fixture(scope="session")
def tiny(fcbench: Run, cache: Path) -> Callable[..., Result]:
    """A tiny run into a folder, with further options."""

    def call(out: Path, *args: object) -> Result:
        encoder = () if "--encoder" in args else ("--encoder", "sam2_nano")
        return fcbench(*TINY, *encoder, "--cache-dir", cache, "--out", out, *args)

    return call


@pytest.fixture(scope="session")
def finished(tiny: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder: hyperprior and uniform, segmentation and captioning."""
    out = tmp_path_factory.mktemp("results") / "run"
    result = tiny(out, "--task", "segmentation", "--task", "captioning", "--keep-streams")
    assert result.exit_code == 0, result.output
    return out
