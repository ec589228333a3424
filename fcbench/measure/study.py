"""What the points of a suite share: its data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset, require_tasks
from fcbench.measure.suite import Suite


def open_data(suite: Suite, cache_dir: Path) -> dict[str, Dataset]:
    """Both splits of the suite's data set."""
    plugin = registry.get("dataset", suite.dataset)
    if plugin.needs_root and suite.data_root is None:
        raise FcbenchError(
            f"data set {suite.dataset!r} is read from disk: give --data-root DIR "
            f"({registry.summary('dataset', suite.dataset)})"
        )
    limits: dict[Literal["train", "test"], int | None] = {"train": suite.n_train, "test": suite.n_test}
    opened: dict[str, Dataset] = {
        split: plugin.open(split, DataOptions(suite.data_root, cache_dir, suite.image_size_px, limit))
        for split, limit in limits.items()
    }
    require_tasks(suite.tasks, *opened.values())
    return opened
