"""COCO-style files beside images: what one holds is seen from its annotations, not from its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcbench.core.samples import OBJECTS
from fcbench.data.folder.layout import LAYOUT
from fcbench.data.shared import coco_format
from fcbench.data.shared.layout import some

MARKS = {
    "caption": ("captioning",),
    "keypoints": ("pose", "keypoint_detection"),
    "segmentation": ("segmentation", "instance_segmentation", "detection"),
    "bbox": ("detection",),
}
"""Field of an annotation -> its tasks; the first one found decides."""
"""Of them, those that need a box and an area of every object."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """A file's annotations for one task."""

    path: Path  # the file
    task: str
    targets: Mapping[str, Any]  # by key of the image
    sizes: Mapping[str, tuple[int, int]]  # (H, W) that it states, by key
    names: tuple[str, ...] = ()  # of classes or keypoints; empty for captions


def read(path: Path, images: Mapping[str, Path]) -> list[Annotations]:
    """Read a file that annotates all images of a folder, and no others: what it holds, by task. `images`: by key."""
    content = coco_format.read(path, LAYOUT)
    try:
        listed = coco_format.images_of(content)
        fields = {field for row in content["annotations"] for field in row}
        tasks = next((tasks for mark, tasks in MARKS.items() if mark in fields), ())
        if not all({"bbox", "area"} <= row.keys() for row in content["annotations"]):
            tasks = tuple(task for task in tasks if task not in OBJECTS)
        unknown = {row["image_id"] for row in content["annotations"]} - {image.id for image in listed}
        key_of = {image.id: Path(image.file_name).with_suffix("").as_posix() for image in listed}
        found = {} if unknown else {task: _targets(task, content, listed) for task in tasks}
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise LAYOUT.error(path, f"is not in COCO's format ({type(exc).__name__}: {exc})") from exc
    if not tasks:
        raise LAYOUT.error(path, f"has no annotation with a {', '.join(MARKS)} (a bbox alone needs its area)")
    if unknown:
        raise LAYOUT.error(path, f"annotates image_id {some([repr(i) for i in unknown])}, which it does not list")
    _require_same_images(path, [image.file_name for image in listed], images)
    if "captioning" in found and (silent := [key_of[i] for i, texts in found["captioning"][0].items() if not texts]):
        raise LAYOUT.error(path, f"has no caption of {some(silent)}")
    sizes = {key_of[image.id]: image.size_px for image in listed}
    return [
        Annotations(path, task, {key_of[i]: target for i, target in targets.items()}, sizes, names)
        for task, (targets, names) in found.items()
    ]


def _targets(
    task: str, content: Mapping[str, Any], listed: list[coco_format.Image]
) -> tuple[Mapping[int, Any], tuple[str, ...]]:
    if task == "captioning":
        return coco_format.captions(content, listed), ()
    if task in OBJECTS:
        n_keypoints = len(coco_format.keypoint_names(content)) if task == "keypoint_detection" else 0
        found = coco_format.objects(content, listed, task == "instance_segmentation", n_keypoints)
        return found, coco_format.category_names(content)
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
