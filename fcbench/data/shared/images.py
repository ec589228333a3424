"""Images and masks from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fcbench.core.errors import UnreadableSample
from fcbench.core.samples import VOID, Sample
from fcbench.data.shared.layout import some

DECODING_FAILS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


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


def as_sample(sample_id: str, image: Tensor, image_size_px: tuple[int, int] | None) -> Sample:
    """A sample of a decoded image uint8 [3, H, W], resized if a size is given."""
    size_px = (int(image.shape[-2]), int(image.shape[-1]))
    return Sample(sample_id, resize_image(image, image_size_px or size_px), size_px)
