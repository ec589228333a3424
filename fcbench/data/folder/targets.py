"""A split of images with targets beside them, and how their targets are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcbench.core.samples import OBJECTS, VOID, Dataset, DatasetMeta, Sample
from fcbench.data.folder.layout import LAYOUT, Unit
from fcbench.data.shared import coco_format
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.images import (
    LazyTargets,
    as_sample,
    image_size,
    read_16_bit,
    read_aligned_image,
    read_array,
    read_class_mask,
    read_image,
    resize_targets,
)

PLACED = {"segmentation", "depth", "pose", *OBJECTS}  # Tasks whose targets refer to pixels
"""Tasks whose targets refer to pixels."""
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, and by task what its target is made of: a file, regions, or the target itself."""

    id: str
    path: Path
    known: Mapping[str, Any]


@dataclass
class WithTargets(Dataset):
    """One split."""

    split: str
    revision: str
    tasks: tuple[str, ...]
    meta: DatasetMeta
    entries: Sequence[Entry]
    unit: Unit | None  # of depth files, where there are any
    image_size_px: Size | None
    contents: Contents
    # why the split lacks a task, in one line that says what was expected where
    absent: Mapping[str, str] = field(default_factory=dict)
    name: str = LAYOUT.name

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        read = read_aligned_image if PLACED & set(self.tasks) else read_image
        return as_sample(entry.id, read(entry.path), self.image_size_px)

    def targets(self, index: int) -> Mapping[str, Any]:
        entry = self.entries[index]

        def one(task: str) -> Any:
            if task not in PLACED:
                return entry.known[task]
            size_px = image_size(entry.path)
            target = self._placed(task, entry.known[task], size_px)
            return resize_targets({task: target}, size_px, self.image_size_px or size_px)[task]

        return LazyTargets(self.tasks, one)

    def sizes(self) -> Mapping[str, Size]:
        return self.contents.sizes([entry.path for entry in self.entries])

    def _placed(self, task: str, known: Any, size_px: Size) -> Any:
        if task == "segmentation":
            if isinstance(known, Path):
                return read_class_mask(known, len(self.meta.class_names), size_px, VOID)
            return coco_format.semantic_mask(known, size_px)
        if task == "depth" and self.unit:
            return read_depth(known, self.unit, size_px)
        return coco_format.with_codes(known) if task == "instance_segmentation" else known


def read_depth(path: Path, unit: Unit, size_px: Size) -> Tensor:
    """Depth of an image of (H, W), float32 [H, W] metres; 0 where not finite, not above 0 or beyond the unit's limit.
    Raises `UnreadableSample`: the file is damaged, of another size, or holds no plane of numbers."""
    read: Callable[[Path, Size], np.ndarray] = read_array if path.suffix.lower() == ".npy" else read_16_bit
    metres = read(path, size_px).astype(np.float64) * unit.metres_per_unit
    valid = np.isfinite(metres) & (metres > 0) & (metres <= unit.max_m)
    return torch.from_numpy(np.where(valid, metres, 0).astype(np.float32))
