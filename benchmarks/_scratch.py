"""A folder for what a benchmark makes and drops: in memory, where the system has such a place."""

import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")


def scratch(name: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder, removed at the end of the block. `name`: of the benchmark."""
    return tempfile.TemporaryDirectory(prefix=f"fcbench-{name}-", dir=_MEMORY if _MEMORY.is_dir() else None)
