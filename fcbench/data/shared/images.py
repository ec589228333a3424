"""Images and masks from disk."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from fcbench.core.errors import UnreadableSample
from fcbench.core.samples import VOID, Pose, Sample
from fcbench.data.shared.layout import some

DECODING_FAILS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_ON_THEIR_SIDE = range(5, 9)  # EXIF orientations that swap height and width


def read_image(path: Path, data: bytes | None = None) -> Tensor:
    """Decode an image, or its file's content, as RGB, rotated according to its EXIF orientation. Returns uint8
    [3, H, W]. 16 bits per channel are scaled to 8: 65535 becomes 255. Raises `UnreadableSample`: the file is missing,
    damaged, truncated or not a regular file, or its values have no known range."""
    with _opened("image", path, data) as file:
        return _rgb(file)


def read_aligned_image(path: Path, data: bytes | None = None) -> Tensor:
    """Decode an image whose targets refer to its pixels as stored: `read_image` without rotation.

    Raises `UnreadableSample`: see `read_image`; also if the EXIF orientation asks for a rotation, after which image
    and targets would not match.
    """
    with _opened("image", path, data) as file:
        if (turn := _orientation(file)) != 1:
            raise UnreadableSample(
                f"image {path} has EXIF orientation {turn}, its targets are for the pixels as stored: "
                "remove the tag, or turn the image and its targets"
            )
        return _rgb(file)


def image_size(path: Path, data: bytes | None = None) -> tuple[int, int]:
    """(H, W) of an image in pixels as `read_image` returns it, from its header alone. Raises `UnreadableSample`: the
    file is missing or its header is damaged."""
    with _opened("image", path, data) as file:
        turned = _orientation(file) in _ON_THEIR_SIDE
        return (file.width, file.height) if turned else (file.height, file.width)


@contextmanager
def _opened(what: str, path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open a picture file, or its content; an error inside becomes an `UnreadableSample` that names it."""
    try:
        if data is None and path.exists() and not path.is_file():  # reading a pipe would block forever
            raise ValueError("not a regular file")
        with Image.open(path if data is None else io.BytesIO(data)) as file:
            yield file
    except DECODING_FAILS as exc:
        raise UnreadableSample(f"cannot read {what} {path}: {exc}") from exc


def _rgb(file: Image.Image) -> Tensor:
    turned = ImageOps.exif_transpose(file) if _orientation(file) != 1 else file
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG"):  # older Pillow says I
        grey = (np.asarray(turned).astype(np.uint32) * 255 + 32767) // 65535
        pixels = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    elif file.mode in ("I", "F"):
        raise ValueError(f"pixel mode {file.mode!r} has no known range: expected 8 or 16 bits per channel")
    else:
        pixels = np.array(turned.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _orientation(file: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (as stored) if it is missing or damaged."""
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data make Pillow raise many types
        return 1
    return orientation if orientation in range(1, 9) else 1


def read_class_mask(
    path: Path, n_classes: int, size_px: tuple[int, int], void: int | None = None, first: int = 0
) -> Tensor:
    """Decode an 8-bit mask of class indices. Returns uint8 [H, W], classes from 0, void as `VOID`.

    `path`: the mask file, grey or palette. `n_classes`: K; indices ``first`` to ``first + K - 1`` are allowed.
    `size_px`: (H, W) of its image, which the mask must have. `void`: index in the file of pixels without a class; None
    if there are none. `first`: index in the file of the first class. Raises `UnreadableSample`: damaged, not 8-bit, of
    another size, or with an index out of range.
    """
    mode, pixels = _decode("mask", path)
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


def read_16_bit(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    """Decode a 16-bit grey image. Returns uint16 [H, W]. Raises `UnreadableSample`: damaged, not 16-bit, or not of the
    size (H, W) of its image."""
    mode, pixels = _decode("map", path)
    if not mode.startswith("I"):
        raise UnreadableSample(f"map {path} has pixel mode {mode!r}: expected 16-bit grey (I;16)")
    require_image_size("map", path, pixels.shape, size_px)
    return pixels.astype(np.uint16)


def read_array(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    """Read a ``.npy`` file of one plane of real numbers. Returns [H, W]. Raises `UnreadableSample`: damaged, not of
    real numbers, or not of the size (H, W) of its image."""
    with _array(path) as plane:
        require_image_size("map", path, plane.shape, size_px)
        return np.array(plane)


def array_size(path: Path) -> tuple[int, int]:
    """(H, W) of a ``.npy`` file, from its header alone. Raises `UnreadableSample`."""
    with _array(path) as plane:
        return (plane.shape[0], plane.shape[1])


@contextmanager
def _array(path: Path) -> Iterator[np.ndarray]:
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        plane = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(plane, np.ndarray) or plane.ndim != 2 or plane.dtype.kind not in "fiu":
            raise ValueError("expected one array [H, W] of real numbers")
    except (OSError, ValueError, EOFError, SyntaxError) as exc:
        raise UnreadableSample(f"cannot read map {path}: {exc}") from exc
    yield plane


def _decode(what: str, path: Path) -> tuple[str, np.ndarray]:
    """Mode and pixels of an image of one channel. Raises `UnreadableSample`."""
    with _opened(what, path) as file:
        return file.mode, np.array(file)


def require_image_size(what: str, path: Path, shape: Sequence[int], size_px: tuple[int, int]) -> None:
    """Refuse a map whose size differs from its image's (H, W)."""
    if tuple(shape) != size_px:
        raise UnreadableSample(f"{what} {path} is {_hxw(shape)}, its image is {_hxw(size_px)}: they must be equal")


def _hxw(size: Sequence[int]) -> str:
    return "x".join(str(v) for v in size)


def resize_image(image: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Resize uint8 [C, H, W] to (H, W), bilinear with antialiasing."""
    if image.shape[-2:] == size_px:
        return image
    smooth = F.interpolate(image[None].float(), size_px, mode="bilinear", antialias=True, align_corners=False)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)


def as_sample(sample_id: str, image: Tensor, image_size_px: tuple[int, int] | None) -> Sample:
    """A sample from a decoded image uint8 [3, H, W], resized if a size is given."""
    size_px = (int(image.shape[-2]), int(image.shape[-1]))
    return Sample(sample_id, resize_image(image, image_size_px or size_px), size_px)


PHOTOGRAPHS = {"segmentation": "sam2_masks", "depth": "depth_anything", "pose": "vitpose", "captioning": "blip"}
"""Task models for photographs: the default of ``--head frozen`` for these data sets."""


def resize_nearest(plane: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Resize a mask or a depth map [H, W] to (H, W) without new values."""
    if plane.shape == size_px:
        return plane
    return F.interpolate(plane[None, None], size_px, mode="nearest-exact")[0, 0]


def resize_pose(pose: Pose, old_px: tuple[int, int], new_px: tuple[int, int]) -> Pose:
    """Scale keypoints, boxes and areas to an image resized from one (H, W) to another."""
    sy, sx = new_px[0] / old_px[0], new_px[1] / old_px[1]
    scale = np.array([sx, sy, 1.0], dtype=np.float32)
    return Pose(
        keypoints=pose.keypoints * scale,
        boxes=pose.boxes * np.array([sx, sy, sx, sy], dtype=np.float32),
        areas=pose.areas * np.float32(sx * sy),
    )


def resize_targets(targets: Mapping[str, Any], old_px: tuple[int, int], new_px: tuple[int, int]) -> dict[str, Any]:
    """Targets by task, resized with their image from one (H, W) to another. Targets without positions in the image
    (captions, a label) are returned unchanged."""

    def one(target: Any) -> Any:
        if isinstance(target, Tensor):
            return resize_nearest(target, new_px)
        return resize_pose(target, old_px, new_px) if isinstance(target, Pose) else target

    return {task: one(target) for task, target in targets.items()}


class LazyTargets(Mapping[str, Any]):
    """Targets by task, each made on request, so that reading a pose decodes no mask."""

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
