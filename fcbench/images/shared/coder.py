"""What image codecs share: the plug-in of one knob, checks of images, colour conversion. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcbench.core.errors import FcbenchError

MAX_PX = 1 << 26
"""An image has at most this many pixels."""

Params = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class ImageCodec:
    """An image coder with one knob.

    Attributes:
        knob: name of the parameter that sets the rate, from ``low`` to ``high``.
        values: the knob's default sweep, low rate to high.
        coder: rgb uint8 [H, W, 3] and the knob to a file.
        decoder: a file to rgb uint8 [H, W, 3].
        versions: library and linked coder.
    """

    name: str
    knob: str
    low: float
    high: float
    values: tuple[float, ...]
    coder: Callable[[np.ndarray, float], bytes]
    decoder: Callable[[bytes], np.ndarray]
    versions: Callable[[], dict[str, str]]

    def sweep(self) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""
        return [{self.knob: value} for value in self.values]

    def encode(self, image: Any, params: Params) -> bytes:
        """Code an image, uint8 [3, H, W], numpy or torch.

        Raises:
            FcbenchError: another type or shape, unknown parameters, or the coder fails.
        """
        return self.coder(rgb_of(image), self._value(params))

    def decode(self, data: bytes) -> np.ndarray:
        """uint8 [3, H, W] of a file. Raises `FcbenchError` where it is damaged."""
        if not data:
            raise FcbenchError(f"{self.name}: no bytes to decode")
        return chw(self.decoder(data), self.name)

    def _value(self, params: Params) -> float:
        value = params.get(self.knob)
        known = set(params) == {self.knob} and not isinstance(value, (str, bool))
        if not known or value is None or not self.low <= float(value) <= self.high:
            raise FcbenchError(
                f"image codec {self.name!r} has the parameter {self.knob}, {self.low:g} to {self.high:g}; "
                f"it got {dict(params)}"
            )
        return float(value)


def rgb_of(image: Any) -> np.ndarray:
    """uint8 [3, H, W], numpy or torch, to contiguous [H, W, 3]. Raises `FcbenchError` for anything else."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] != 3:
        raise FcbenchError(f"an image is uint8 [3, H, W], not {array.dtype} {list(array.shape)}")
    if not 0 < array.size <= 3 * MAX_PX:
        raise FcbenchError(f"an image of {list(array.shape)} cannot be coded: 1 to {MAX_PX} pixels")
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def chw(rgb: np.ndarray, name: str) -> np.ndarray:
    """[H, W, 3] uint8 to contiguous [3, H, W]. Raises `FcbenchError` for anything else."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise FcbenchError(f"{name}: decoded {rgb.dtype} {list(rgb.shape)}, not uint8 [H, W, 3]")
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


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
