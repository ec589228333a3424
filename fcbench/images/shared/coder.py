"""Image codecs as plug-ins with one knob, checks of images, colour conversion. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcbench.coders.foreign import PictureCoder
from fcbench.core.codecs import ImagePlugin, Knobs, number, only
from fcbench.core.errors import FcbenchError
from fcbench.core.rules import MAX_IMAGE_PX


@dataclass(frozen=True)
class ImageCodec(ImagePlugin):
    """A coder of [H, W, 3] pictures with one knob."""

    name: str
    knob: str  # parameter that sets the rate, from ``low`` to ``high``
    low: float
    high: float
    values: tuple[float, ...]  # the knob's default sweep, low rate to high
    coder: PictureCoder
    headers: Callable[[bytes], int] = lambda data: 0  # bytes of a file that `fcbench.coders.headers` counts

    def sweep(self) -> list[dict[str, float | int | str]]:
        return [{self.knob: value} for value in self.values]

    def check(self, params: Knobs) -> None:
        """Check that the knob is the only one, and in range."""
        only(params, f"image codec {self.name!r}", self.knob)
        number(params, self.knob, self.low, self.high)

    def encode(self, image: Any, params: Knobs) -> bytes:
        rgb = rgb_of(image)
        self.check(params)
        return self.coder.encode(rgb, float(params[self.knob]), 8)

    def decode(self, data: bytes) -> np.ndarray:
        if not data:
            raise FcbenchError(f"{self.name}: no bytes to decode")
        rgb = self.coder.decode(data, None, 8)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise FcbenchError(f"{self.name}: decoded {rgb.dtype} {list(rgb.shape)}, expected uint8 [H, W, 3]")
        return np.ascontiguousarray(rgb.transpose(2, 0, 1))

    def header_bytes(self, data: bytes) -> int:
        return self.headers(data)

    def versions(self) -> dict[str, str]:
        return self.coder.versions()


def rgb_of(image: Any) -> np.ndarray:
    """uint8 [3, H, W], numpy or torch, to contiguous [H, W, 3]. Raises `FcbenchError`: any other input."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] != 3:
        raise FcbenchError(f"an image must be uint8 [3, H, W], got {array.dtype} {list(array.shape)}")
    if not 0 < array.size <= 3 * MAX_IMAGE_PX:
        raise FcbenchError(f"an image must have 1 to {MAX_IMAGE_PX} pixels, got {list(array.shape)}")
    return np.ascontiguousarray(array.transpose(1, 2, 0))


_KR, _KB = 0.299, 0.114  # ITU-R BT.601


def ycbcr(rgb: np.ndarray) -> list[np.ndarray]:
    """[H, W, 3] uint8 to full-range Y, Cb, Cr [H, W] uint8 (ITU-R BT.601)."""
    r, g, b = rgb.astype(np.float64).transpose(2, 0, 1)
    y = _KR * r + (1 - _KR - _KB) * g + _KB * b
    planes = (y, 128 + (b - y) / (2 * (1 - _KB)), 128 + (r - y) / (2 * (1 - _KR)))
    return [_uint8(p) for p in planes]


def rgb(planes: list[np.ndarray]) -> np.ndarray:
    """Inverse of `ycbcr` to within rounding."""
    y, cb, cr = (p.astype(np.float64) for p in planes)
    r = y + 2 * (1 - _KR) * (cr - 128)
    b = y + 2 * (1 - _KB) * (cb - 128)
    g = (y - _KR * r - _KB * b) / (1 - _KR - _KB)
    return np.stack([_uint8(r), _uint8(g), _uint8(b)], axis=2)


def _uint8(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)
