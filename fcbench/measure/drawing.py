"""Small pictures for a page: an image, features as colours, a task's output."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import pad

from fcbench.core.features import FeatureStats
from fcbench.core.samples import VOID, Detections, Pose

SIDE_PX = 192
"""Maximum of the longer side of a picture."""
SURE = 0.3
"""Minimum score of an object to be drawn."""
_GOLDEN = 0.618034


@dataclass(frozen=True, slots=True)
class Colours:
    """Three principal components of features, as red, green and blue.

    Attributes:
        axes: [C, 3].
        low, high: [3], values that are drawn as black and as full colour.
    """

    axes: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, features: Tensor, stats: FeatureStats) -> Colours:
        """Principal components of uncoded features [B, C, h, w], each channel divided by its training deviation."""
        rows = features.movedim(1, -1).flatten(0, -2)
        scaled = rows / stats.std
        _, _, found = torch.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
        found = pad(found[:3], (0, 0, 0, 3 - len(found[:3])))
        axes = (found / stats.std).T * torch.where(found.sum(1) < 0, -1.0, 1.0)
        low, high = torch.quantile(rows @ axes, torch.tensor([0.01, 0.99]), dim=0)
        return cls(axes, low, high)

    def picture(self, features: Tensor) -> Image.Image:
        """Features [C, h, w] as a picture, one pixel per position."""
        share = (features.movedim(0, -1) @ self.axes - self.low) / (self.high - self.low).clamp(min=1e-9)
        return Image.fromarray((share.clamp(0, 1) * 255).byte().numpy())


def photograph(image: Tensor) -> str:
    """An image, uint8 [3, H, W], as a data URL."""
    return _address(_small(Image.fromarray(image.permute(1, 2, 0).numpy())), "webp")


def colours(picture: Image.Image) -> str:
    """A picture of few colours or pixels as a data URL."""
    return _address(picture, "png")


def output(said: Any, names: Sequence[str], size_px: tuple[int, int], most: float) -> dict[str, str]:
    """A task's output for one image as a picture or text.

    Args:
        said: output of the task's label coder, or `Detections`.
        names: of the classes.
        size_px: (H, W) that positions refer to.
        most: depth that is drawn white.

    Returns:
        ``whole``, the URL of a picture; ``marks``, that of a transparent overlay on the image; ``text``.
    """
    if isinstance(said, Pose):
        dots = [(i, x, y) for person in said.keypoints for i, (x, y, _) in enumerate(person)]
        return {"marks": _marks(size_px, dots=dots)} if dots else {"text": "none in this image"}
    if isinstance(said, Detections):
        sure = [i for i in np.argsort(-np.asarray(said.scores)) if said.scores[i] >= SURE]
        text = ", ".join(f"{names[said.labels[i]]} {said.scores[i]:.2f}" for i in sure)
        return {"marks": _marks(size_px, [(int(said.labels[i]), *said.boxes[i]) for i in sure]), "text": text or "none"}
    if isinstance(said, np.ndarray) and said.dtype == np.uint8:
        picture = Image.fromarray(said).convert("P")
        picture.putpalette(np.array([_colour(i) for i in range(256)], np.uint8).tobytes())
        return {"whole": colours(_small(picture, Image.Resampling.NEAREST))}
    if isinstance(said, np.ndarray):
        return {"whole": _address(_small(Image.fromarray((said / most * 255).clip(0, 255).astype(np.uint8))), "webp")}
    return {"text": names[said] if isinstance(said, int) else " ".join(said)}


def _marks(size_px: tuple[int, int], boxes: Sequence[Any] = (), dots: Sequence[Any] = ()) -> str:
    """Boxes (number, x0, y0, x1, y1) and dots (number, x, y) in pixels of (H, W), coloured by number."""
    picture = _small(Image.new("RGBA", size_px[::-1]))
    draw, scale = ImageDraw.Draw(picture), picture.width / size_px[1]
    for i, *box in boxes:
        draw.rectangle([v * scale for v in box], outline=_colour(i + 1), width=2)
    for i, x, y in dots:
        draw.circle((x * scale, y * scale), 2, fill=_colour(i + 1), outline=(0, 0, 0))
    return colours(picture)


def _colour(number: int) -> tuple[int, int, int]:
    """Colour of a class: neighbours differ in hue and lightness; the first is dark, `VOID` grey."""
    if number in (0, VOID):
        return (40, 40, 40) if number == 0 else (128, 128, 128)
    r, g, b = colorsys.hls_to_rgb(number * _GOLDEN % 1, (0.45, 0.65, 0.8)[number % 3], 0.75)
    return int(r * 255), int(g * 255), int(b * 255)


def _small(picture: Image.Image, how: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    scale = min(1.0, SIDE_PX / max(picture.size))
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def _address(picture: Image.Image, form: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, **({"quality": 80} if form == "webp" else {"optimize": True}))
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
