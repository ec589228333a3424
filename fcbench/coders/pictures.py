"""What a foreign coder of pictures is: defined once, used for feature mosaics and for images. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]  # (H, W)


@dataclass(frozen=True, slots=True)
class PictureCoder:
    """A coder of one picture: [H, W], or [H, W, 3] where it takes colours."""

    # picture (uint8 of 8 bits, uint16 of more, float32 of floats), knob and bits per sample to a string
    encode: Callable[[np.ndarray, float, int | None], bytes]
    # a string, the picture's (H, W) where it is known, and bits per sample to a picture of the same type
    decode: Callable[[bytes, Size | None, int | None], np.ndarray]
    # versions of library and linked coder. Raises `FcbenchError` where one is missing.
    versions: Callable[[], dict[str, str]]
    least_px: int = 1  # smallest height and width,
    multiple_px: int = 1  # of which sides are multiples
