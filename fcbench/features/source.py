"""The samples of a data set that could be read, with their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.samples import Dataset, Sample
from fcbench.features.extract import FeatureStore


class Readable(Dataset):
    """The samples of a data set that could be read, numbered as in its feature store (a `Dataset`)."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices
        self.name, self.split, self.revision = (dataset.name, dataset.split, dataset.revision)
        self.tasks, self.meta, self.image_size_px = (dataset.tasks, dataset.meta, dataset.image_size_px)
        self.absent = dataset.absent

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
