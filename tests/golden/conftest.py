"""``pytest tests/golden --regenerate-golden`` writes the golden files anew instead of comparing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden", action="store_true", help="write the golden files anew: review the difference"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compares bytes with the golden file of a name."""
    regenerate = bool(request.config.getoption("--regenerate-golden", default=False))

    def compare(name: str, data: bytes) -> None:
        path = DATA / name
        if regenerate:
            path.write_bytes(data)
        assert path.exists(), f"{name} is missing: run pytest tests/golden --regenerate-golden"
        assert data == path.read_bytes(), f"{name} has changed: files written by earlier versions cannot be read"

    return compare
