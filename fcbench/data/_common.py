"""What readers of data on disk share: decoding, resizing, revisions, errors about layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fcbench.types import VOID, DataOptions, Dataset, FcbenchError, Pose, UnreadableSample

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DECODING_FAILS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

PHOTOGRAPHS = {"segmentation": "sam2_masks", "depth": "depth_anything", "pose": "vitpose", "captioning": "blip"}
"""Task models for photographs: the default of ``--head frozen`` there."""


# ------------------------------------------------------------------------------------------- layout
def require_root(name: str, options: DataOptions, layout: str) -> Path:
    """The folder of a data set on disk.

    Raises:
        FcbenchError: no root was given, or it is no folder; the message holds the layout expected.
    """
    if options.root is None:
        raise FcbenchError(f"data set {name!r} needs a folder: give --data-root DIR with {layout}")
    if not options.root.is_dir():
        raise FcbenchError(layout_error(name, options.root, "is no folder", layout))
    return options.root


def layout_error(name: str, path: Path, problem: str, layout: str) -> str:
    """One line for data that do not lie as they should."""
    return f"data set {name!r}: {path} {problem}. Expected: {layout}"


def images_in(name: str, folder: Path, layout: str) -> list[Path]:
    """Image files of a folder, sorted by name.

    Raises:
        FcbenchError: no such folder, it cannot be read, or no image is in it.
    """
    if not folder.is_dir():
        raise FcbenchError(layout_error(name, folder, "is missing", layout))
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as exc:
        problem = f"cannot be read ({exc.strerror})"
        raise FcbenchError(layout_error(name, folder, problem, layout)) from exc
    if not files:
        raise FcbenchError(layout_error(name, folder, "holds no images", layout))
    return sorted(files, key=lambda p: p.name)


def some(names: Sequence[str], n: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b", "c"], n=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more


def files_revision(root: Path, files: Iterable[Path]) -> str:
    """Hash of the files' names below the root and their sizes; their content is not read.

    Raises:
        FcbenchError: a file cannot be looked at.
    """
    digest = hashlib.sha256()
    try:
        entries = sorted((p.relative_to(root).as_posix(), p.stat().st_size) for p in files)
    except OSError as exc:
        raise FcbenchError(f"cannot read {exc.filename}: {exc.strerror}") from exc
    for path, n_bytes in entries:
        digest.update(f"{path}\0{n_bytes}\n".encode())
    return digest.hexdigest()[:16]


# ----------------------------------------------------------------------------------------- decoding
def read_image(path: Path) -> Tensor:
    """Decode an image as RGB. Returns uint8 [3, H, W].

    Raises:
        UnreadableSample: the file is missing, damaged or cut short.
    """
    try:
        with Image.open(path) as file:
            pixels = np.array(file.convert("RGB"))
    except DECODING_FAILS as exc:
        raise UnreadableSample(f"cannot read image {path}: {exc}") from exc
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image in pixels, from its header alone.

    Raises:
        UnreadableSample: the file is missing or its header is damaged.
    """
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except DECODING_FAILS as exc:
        raise UnreadableSample(f"cannot read image {path}: {exc}") from exc


def read_class_mask(
    path: Path, n_classes: int, size_px: tuple[int, int], void: int | None = None, first: int = 0
) -> Tensor:
    """Decode an 8-bit mask of class indices. Returns uint8 [H, W], classes from 0, void as `VOID`.

    Args:
        path: the mask file, grey or palette.
        n_classes: K; indices ``first`` to ``first + K - 1`` are allowed.
        size_px: (H, W) that the mask must have: its image's.
        void: index in the file of pixels without a class; None where there are none.
        first: index in the file of the first class.

    Raises:
        UnreadableSample: damaged, not 8-bit, of another size, or with an index out of range.
    """
    try:
        with Image.open(path) as file:
            mode, pixels = file.mode, np.array(file)
    except DECODING_FAILS as exc:
        raise UnreadableSample(f"cannot read mask {path}: {exc}") from exc
    if mode not in ("L", "P"):
        raise UnreadableSample(f"mask {path} has pixel mode {mode!r}: expected 8-bit class indices (L or P)")
    require_image_size("mask", path, pixels.shape, size_px)
    meaning = np.full(256, VOID, dtype=np.uint8)
    meaning[first : first + n_classes] = np.arange(n_classes)
    allowed = np.zeros(256, dtype=bool)
    allowed[first : first + n_classes] = True
    if void is not None:
        allowed[void] = True
    wrong = np.unique(pixels[~allowed[pixels]])
    if wrong.size:
        known = f"{first} to {first + n_classes - 1}" + (f" and void {void}" if void is not None else "")
        raise UnreadableSample(f"mask {path} holds class index {some([str(v) for v in wrong])}: allowed are {known}")
    return torch.from_numpy(meaning[pixels])


def require_image_size(what: str, path: Path, came: Sequence[int], size_px: tuple[int, int]) -> None:
    """Refuse a map of another size than its image's (H, W).

    Raises:
        UnreadableSample: the sizes differ, or the map is no plane.
    """
    if tuple(came) != size_px:
        raise UnreadableSample(f"{what} {path} is {_hxw(came)}, its image is {_hxw(size_px)}: they must be equal")


def _hxw(size: Sequence[int]) -> str:
    return "x".join(str(v) for v in size)


# ----------------------------------------------------------------------------------------- resizing
def resize_image(image: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Resize uint8 [C, H, W] to (H, W), bilinear with antialiasing."""
    if image.shape[-2:] == size_px:
        return image
    smooth = F.interpolate(image[None].float(), size_px, mode="bilinear", antialias=True, align_corners=False)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)


def resize_nearest(plane: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Resize a mask or a depth map [H, W] to (H, W); no value is made up."""
    if plane.shape == size_px:
        return plane
    return F.interpolate(plane[None, None], size_px, mode="nearest-exact")[0, 0]


def resize_pose(pose: Pose, old_px: tuple[int, int], new_px: tuple[int, int]) -> Pose:
    """Scale keypoints, boxes and areas with an image that goes from one (H, W) to another."""
    sy, sx = new_px[0] / old_px[0], new_px[1] / old_px[1]
    scale = np.array([sx, sy, 1.0], dtype=np.float32)
    return Pose(
        keypoints=pose.keypoints * scale,
        boxes=pose.boxes * np.array([sx, sy, sx, sy], dtype=np.float32),
        areas=pose.areas * np.float32(sx * sy),
    )


def resize_targets(targets: Mapping[str, Any], old_px: tuple[int, int], new_px: tuple[int, int]) -> dict[str, Any]:
    """Targets by task, resized with their image from one (H, W) to another.

    What has no place in the image (captions, a label) is handed on.
    """

    def one(target: Any) -> Any:
        if isinstance(target, Tensor):
            return resize_nearest(target, new_px)
        return resize_pose(target, old_px, new_px) if isinstance(target, Pose) else target

    return {task: one(target) for task, target in targets.items()}


# ------------------------------------------------------------------------------------------- targets
class LazyTargets(Mapping[str, Any]):
    """Targets by task, each made when it is asked for: who wants a pose decodes no mask.

    Args:
        tasks: those that are carried.
        make: makes the target of a task.
    """

    def __init__(self, tasks: Sequence[str], make: Callable[[str], Any]) -> None:
        self._tasks, self._make = tuple(tasks), make

    def __getitem__(self, task: str) -> Any:
        if task not in self._tasks:
            raise KeyError(task)
        return self._make(task)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


def require_tasks(data: Dataset, tasks: Sequence[str]) -> None:
    """Refuse a split that lacks the targets of a task, before anything is computed.

    Raises:
        FcbenchError: it lacks one; the line says what was expected where, if the data set knows (``absent``).
    """
    for task in tasks:
        if task not in data.tasks:
            has = ", ".join(data.tasks) or "none"
            why: Mapping[str, str] = getattr(data, "absent", {})
            raise FcbenchError(
                why.get(task)
                or f"data set {data.name!r} ({data.split}) has no targets for task {task!r}; it has: {has}"
            )
