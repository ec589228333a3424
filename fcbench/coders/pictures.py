"""What a foreign coder of pictures is: defined once, used for feature mosaics and for images. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
"""(H, W)."""


@dataclass(frozen=True, slots=True)
class PictureCoder:
    """A coder of one picture: [H, W], or [H, W, 3] where it takes colours.

    Attributes:
        encode: picture (uint8 of 8 bits, uint16 of more, float32 of floats), knob and bits per sample to a string.
        decode: a string, the picture's (H, W) where it is known, and bits per sample to a picture of the same type.
        versions: versions of library and linked coder. Raises `FcbenchError` where one is missing.
        least_px: smallest height and width,
        multiple_px: of which sides are multiples.
    """

    encode: Callable[[np.ndarray, float, int | None], bytes]
    decode: Callable[[bytes, Size | None, int | None], np.ndarray]
    versions: Callable[[], dict[str, str]]
    least_px: int = 1
    multiple_px: int = 1
