"""One warm process for all hostile tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from given import fill
from warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    fill(path)
    return path
