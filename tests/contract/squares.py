"""Images with one object each, for the contract of tasks that find objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fcbench.core.samples import OBJECTS, DataOptions, DatasetMeta, DatasetPlugin, Objects
from fcbench.testing.fake_data import FakeDataset


class Squares(FakeDataset):
    tasks = OBJECTS

    def __init__(self, n: int, size_px: tuple[int, int], split: str) -> None:
        super().__init__(n, size_px, split)
        self.meta = DatasetMeta(category_names=dict.fromkeys(OBJECTS, ("square",)))

    def targets(self, index: int) -> Mapping[str, Any]:
        box, area = np.array([[1.0, 2, 3, 3]]), np.array([9.0])
        return dict.fromkeys(OBJECTS, Objects(self.size_px, np.zeros(1, int), box, area, np.zeros(1, bool)))


class Plugin(DatasetPlugin):
    tasks, needs_root = OBJECTS, False

    def open(self, split: Literal["train", "test"], options: DataOptions) -> Squares:
        return Squares(options.limit or 6, options.image_size_px or (64, 64), split)


PLUGIN = Plugin()
