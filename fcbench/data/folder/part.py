"""One folder of a split: its images, and where the targets of each task come from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcbench.core.samples import COCO_KEYPOINTS
from fcbench.data.folder import coco_json
from fcbench.data.folder.layout import (
    CLASSES_FILE,
    DEPTH,
    DEPTH_FILE,
    LAYOUT,
    MASKS,
    annotation_files,
    keyed_images,
    partners,
    read_class_names,
)
from fcbench.data.shared.contents import Contents

Size = tuple[int, int]


@dataclass
class Part:
    """What one folder of a split holds."""

    folder: Path
    images: Mapping[str, Path]  # by key
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # task -> what its targets are made of, by key
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of classes, keypoints or labels, by task
    files: list[Path] = field(default_factory=list)  # all whose contents determine the samples

    def add(self, task: str, source: Path, known: Mapping[str, Any], names: Iterable[str] = ()) -> None:
        """Note where a task's targets come from; a second source is refused."""
        if task in self.known:
            raise LAYOUT.error(source, f"is a second source of targets for {task}: keep one")
        self.known[task], self.names[task] = known, tuple(names)


def read_part(root: Path, folder: Path, contents: Contents) -> Part:
    """Find the images of a folder and their targets; none is decoded. Raises `FcbenchError`: the layout is another one,
    a partner is missing, or a target is not of its image's size."""
    images, classes = keyed_images(folder)
    part = Part(folder, images, files=list(images.values()))
    if (folder / MASKS).is_dir():
        masks = partners(folder / MASKS, images, (".png",))
        part.add("segmentation", folder / MASKS, masks, read_class_names(root / CLASSES_FILE))
        part.files += [*masks.values(), root / CLASSES_FILE]
        _require_sizes(part, masks, contents)
    if (folder / DEPTH).is_dir():
        depths = partners(folder / DEPTH, images, (".png", ".npy"))
        part.add("depth", folder / DEPTH, depths)
        part.files += [*depths.values(), root / DEPTH_FILE]
        _require_sizes(part, depths, contents)
    for path in annotation_files(folder):
        for found in coco_json.read(path, images):
            names = () if found.names == COCO_KEYPOINTS else found.names
            part.add(found.task, path, found.targets, names)
            _require_fit(part, {key: (f"{path} states", size) for key, size in found.sizes.items()}, contents)
        part.files.append(path)
    if classes:
        part.add("classification", folder, classes)
    return part


def _require_sizes(part: Part, maps: Mapping[str, Path], contents: Contents) -> None:
    sizes = contents.sizes_by_path(list(maps.values()))
    stated = {key: (f"{path} is", sizes[path]) for key, path in maps.items() if path in sizes}
    _require_fit(part, stated, contents)


def _require_fit(part: Part, stated: Mapping[str, tuple[str, Size]], contents: Contents) -> None:
    """Refuse what is not of its image's size; what cannot be read is left to whoever reads it."""
    sizes = contents.sizes_by_path(list(part.images.values()))
    for key, (what, (h, w)) in stated.items():
        if (size := sizes.get(part.images[key])) and size != (h, w):
            raise LAYOUT.error(part.images[key], f"is {size[0]}x{size[1]}, but {what} {h}x{w}")
