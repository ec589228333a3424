"""One folder of a split: its images, and the source of each task's targets. The tasks of a COCO-style file follow from
its annotations, not from its name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcbench.core.samples import COCO_KEYPOINTS, OBJECTS
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
from fcbench.data.shared import coco_format
from fcbench.data.shared.contents import Contents
from fcbench.data.shared.layout import some

MARKS = {
    "caption": ("captioning",),
    "keypoints": ("pose", "keypoint_detection"),
    "segmentation": ("segmentation", "instance_segmentation", "detection"),
    "bbox": ("detection",),
}
"""Field of an annotation -> its tasks; the first field with a value decides."""
Size = tuple[int, int]
Named = tuple[Mapping[str, Any], tuple[str, ...]]  # Targets by key, and names of classes or keypoints, if any


def read_annotations(path: Path, images: Mapping[str, Path]) -> tuple[Mapping[str, Size], Mapping[str, Named]]:
    """Read a file that annotates exactly the images of a folder; returns the sizes (H, W) that it states, by key, and
    its annotations by task. `images`: by key."""
    content = coco_format.read(path, LAYOUT)
    try:
        listed = coco_format.images_of(content)
        tasks = next((tasks for mark, tasks in MARKS.items() if coco_format.has(content, mark)), ())
        if any(row.get(field) in (None, []) for row in content["annotations"] for field in ("bbox", "area")):
            tasks = tuple(task for task in tasks if task not in OBJECTS)
        unknown = {row["image_id"] for row in content["annotations"]} - {image.id for image in listed}
        key_of = {image.id: Path(image.file_name).with_suffix("").as_posix() for image in listed}
        by_task = {} if unknown else {task: _targets(task, content, listed) for task in tasks}
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise LAYOUT.error(path, f"is not in COCO's format ({type(exc).__name__}: {exc})") from exc
    if not tasks:
        raise LAYOUT.error(path, f"has no annotation with a {', '.join(MARKS)} (a bbox alone needs its area)")
    if unknown:
        raise LAYOUT.error(path, f"annotates image_id {some([repr(i) for i in unknown])}, which it does not list")
    _require_same_images(path, [image.file_name for image in listed], images)
    if "captioning" in by_task and (
        silent := [key_of[i] for i, texts in by_task["captioning"][0].items() if not texts]
    ):
        raise LAYOUT.error(path, f"has no caption of {some(silent)}")
    sizes = {key_of[image.id]: image.size_px for image in listed}
    keyed = {task: {key_of[i]: target for i, target in targets.items()} for task, (targets, _) in by_task.items()}
    return sizes, {task: (keyed[task], names) for task, (_, names) in by_task.items()}


def _targets(
    task: str, content: Mapping[str, Any], listed: list[coco_format.Image]
) -> tuple[Mapping[int, Any], tuple[str, ...]]:
    if task == "captioning":
        return coco_format.captions(content, listed), ()
    if task in OBJECTS:
        n_keypoints = len(coco_format.keypoint_names(content)) if task == "keypoint_detection" else 0
        objects = coco_format.objects(content, listed, task == "instance_segmentation", n_keypoints)
        return objects, coco_format.category_names(content)
    if task == "pose":
        names = coco_format.keypoint_names(content)
        return coco_format.poses(content, listed, len(names)), names
    return coco_format.instances(content, listed), coco_format.class_names(content)


def _require_same_images(path: Path, listed: list[str], images: Mapping[str, Path]) -> None:
    there = {key + image.suffix for key, image in images.items()}
    if gone := [name for name in listed if name not in there]:
        raise LAYOUT.error(path, f"lists {some(gone)}, which is not in images/")
    if lost := sorted(there - set(listed)):
        raise LAYOUT.error(path, f"does not list image {some(lost)}")


@dataclass
class Part:
    """Contents of one folder of a split."""

    folder: Path
    images: Mapping[str, Path]  # by key
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # task -> source of its targets, by key
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of classes, keypoints or labels, by task
    files: list[Path] = field(default_factory=list)  # all files that determine the samples

    def add(self, task: str, source: Path, known: Mapping[str, Any], names: Iterable[str] = ()) -> None:
        """Record the source of a task's targets. Raises `FcbenchError`: it already has one."""
        if task in self.known:
            raise LAYOUT.error(source, f"is a second source of targets for {task}: keep one")
        self.known[task], self.names[task] = known, tuple(names)


def read_part(root: Path, folder: Path, contents: Contents) -> Part:
    """Find the images of a folder and their targets; none is decoded. Raises `FcbenchError`: the layout is wrong, a
    partner is missing, or a target does not have its image's size."""
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
        sizes, by_task = read_annotations(path, images)
        for task, (targets, names) in by_task.items():
            part.add(task, path, targets, () if names == COCO_KEYPOINTS else names)
        _require_fit(part, {key: (f"{path} states", size) for key, size in sizes.items()}, contents)
        part.files.append(path)
    if classes:
        part.add("classification", folder, classes)
    return part


def _require_sizes(part: Part, maps: Mapping[str, Path], contents: Contents) -> None:
    sizes = contents.sizes_by_path(list(maps.values()))
    stated = {key: (f"{path} is", sizes[path]) for key, path in maps.items() if path in sizes}
    _require_fit(part, stated, contents)


def _require_fit(part: Part, stated: Mapping[str, tuple[str, Size]], contents: Contents) -> None:
    """Refuse targets that do not have their image's size; unreadable files are left to their reader."""
    sizes = contents.sizes_by_path(list(part.images.values()))
    for key, (what, (h, w)) in stated.items():
        if (size := sizes.get(part.images[key])) and size != (h, w):
            raise LAYOUT.error(part.images[key], f"is {size[0]}x{size[1]}, but {what} {h}x{w}")
