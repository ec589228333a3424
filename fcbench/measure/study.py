"""What the points of a suite share: its data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset
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
    for data in opened.values():
        require_tasks(data, suite.tasks)
    return opened


def require_tasks(data: Dataset, tasks: Sequence[str]) -> None:
    """Refuse a split that lacks the targets of a task, before anything is computed.

    Raises:
        FcbenchError: it lacks one; the line says what was expected where, if the data set knows (``absent``).
    """
    for task in tasks:
        if task not in data.tasks:
            has = ", ".join(data.tasks) or "none"
            raise FcbenchError(
                data.absent.get(task)
                or f"data set {data.name!r} ({data.split}) has no targets for task {task!r}; it has: {has}"
            )
