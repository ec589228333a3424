"""A grey picture losslessly, as bare JPEG XL or as PNG, whichever is smaller. Imports no torch."""

from __future__ import annotations

from functools import partial

import numpy as np

from fcbench.coders import stills
from fcbench.core.errors import FcbenchError

_PNG = b"\x89PNG\r\n\x1a\n"


def encode(picture: np.ndarray) -> bytes:
    """[H, W] uint8 or uint16."""
    if picture.ndim != 2 or picture.size == 0 or picture.dtype not in ("u1", "u2"):
        raise FcbenchError(f"a label picture must be uint8 or uint16 [H, W], got {picture.dtype} {list(picture.shape)}")
    candidates = (stills.jpegxl_lossless(picture), stills.encode("png", picture, 9))
    return min(candidates, key=len)


def decode(data: bytes) -> np.ndarray:
    """Inverse of `encode`. Raises `FcbenchError` on damage that can be seen."""
    png = data.startswith(_PNG)
    picture = stills.decode("png", data) if png else stills.decode("jpegxl", data, numthreads=1)
    if picture.ndim != 2:
        raise FcbenchError(f"a label picture must be [H, W], got {list(picture.shape)}")
    return picture


versions = partial(stills.versions, "jpegxl", "png")  # Versions of both coders
