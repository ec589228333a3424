"""What a run reads: the splits of a data set, the samples that could be read, the split points that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcbench import registry
from fcbench.data._common import require_tasks
from fcbench.features import FeatureStore
from fcbench.suite import Suite
from fcbench.types import DataOptions, Dataset, Encoder, FcbenchError, Sample


class Readable:
    """The samples of a data set that could be read, numbered as in its feature store (a `Dataset`)."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices
        self.name, self.split, self.revision = (dataset.name, dataset.split, dataset.revision)
        self.tasks, self.meta, self.image_size_px = (dataset.tasks, dataset.meta, dataset.image_size_px)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def targets(self, index: int) -> Mapping[str, Any]:
        """Targets of a sample."""
        return self._dataset.targets(self._indices[index])


@dataclass(frozen=True, slots=True)
class Split:
    """One split of the data with its features."""

    dataset: Readable
    store: FeatureStore


def splits_of(encoder: Encoder, name: str) -> tuple[str, ...]:
    """Split points of a name: one, a group of the encoder's, or several with plus signs, fine to coarse.

    Raises:
        FcbenchError: the encoder has no such split point.
    """
    found: list[str] = []
    for part in name.split("+"):
        if part not in encoder.specs and part not in encoder.groups:
            known = [*encoder.specs, *encoder.groups]
            raise FcbenchError(registry.unknown(f"split point of {encoder.name}", part, known))
        found += encoder.groups.get(part, (part,))
    return tuple(n for n in encoder.specs if n in found)


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
