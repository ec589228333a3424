"""Images coded at half their height and width: fewer pixels at better quality.

The receiver brings them back to their size before the encoder runs. A file begins with a byte that says which sides
were odd. Down by Lanczos, up by bicubic interpolation (Pillow).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fcbench.coders.foreign import package_version
from fcbench.core import registry
from fcbench.core.codecs import ChecksKnobs, ImagePlugin, Knobs
from fcbench.core.errors import FcbenchError
from fcbench.images.shared.coder import rgb_of


@dataclass(frozen=True)
class HalvedImage(ImagePlugin):
    """An image coder that gets half the height and width."""

    name: str  # of the image coder

    @property
    def of(self) -> ImagePlugin:
        """The image coder."""
        return registry.get("image", self.name)

    def sweep(self) -> list[dict[str, float | int | str]]:
        return self.of.sweep()

    def check(self, params: Knobs) -> None:
        """As of the coder itself."""
        if isinstance(self.of, ChecksKnobs):
            self.of.check(params)

    def encode(self, image: Any, params: Knobs) -> bytes:
        rgb = rgb_of(image)
        height, width = rgb.shape[:2]
        half = _resized(rgb, (-(-height // 2), -(-width // 2)), Image.Resampling.LANCZOS)
        return bytes([height % 2 * 2 + width % 2]) + self.of.encode(half, params)

    def decode(self, data: bytes) -> np.ndarray:
        if not data or data[0] > 3:
            raise FcbenchError(f"{self.name}_half: a file starts with a byte from 0 to 3: this one is damaged")
        half = self.of.decode(data[1:])
        size = (2 * half.shape[1] - (data[0] >> 1), 2 * half.shape[2] - (data[0] & 1))
        return _resized(half.transpose(1, 2, 0), size, Image.Resampling.BICUBIC)

    def header_bytes(self, data: bytes) -> int:
        return self.of.header_bytes(data[1:])

    def versions(self) -> dict[str, str]:
        return {**self.of.versions(), **package_version("pillow")}


def _resized(rgb: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """uint8 [H, W, 3] to [3, height, width]."""
    picture = Image.fromarray(np.ascontiguousarray(rgb)).resize(size[::-1], how)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
