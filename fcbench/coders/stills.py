"""One picture or array through a coder of imagecodecs, its errors made ours. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcbench.coders.foreign import guarded, library, package_version


def imagecodecs() -> Any:
    """The module. Raises `FcbenchError` where it is not installed."""
    return library("imagecodecs", "imagecodecs")


def encode(name: str, data: np.ndarray, *args: Any, **options: Any) -> bytes:
    """Code an array. Raises `FcbenchError` for whatever the coder raises."""
    function = getattr(imagecodecs(), f"{name}_encode")
    return bytes(guarded(name, function, data.copy(order="C"), *args, **options))


def decode(name: str, data: bytes, *args: Any, **options: Any) -> np.ndarray:
    """Decode an array. Raises `FcbenchError` for whatever the coder raises."""
    function = getattr(imagecodecs(), f"{name}_decode")
    return np.asarray(guarded(name, function, data, *args, **options))


def versions(name: str) -> dict[str, str]:
    """Of imagecodecs and of the library behind a coder: ``{"jpegxl": "libjxl 0.11.1"}``."""
    linked = str(getattr(imagecodecs(), f"{name}_version")())
    return {**package_version("imagecodecs"), name: linked}


def webp_encode(rgb: np.ndarray, quality: float) -> bytes:
    """[H, W, 3] uint8 as a lossy WebP at method 6 (slowest, smallest)."""
    return encode("webp", rgb, quality, lossless=False, method=6, numthreads=0)


def webp_decode(data: bytes) -> np.ndarray:
    """[H, W, 3] uint8."""
    return decode("webp", data, hasalpha=False)


def jpegxl_encode(picture: np.ndarray, distance: float, bits: int) -> bytes:
    """[H, W] or [H, W, 3] as a bare JPEG XL codestream at a Butteraugli distance (0.01 to 25), effort 7."""
    return encode("jpegxl", picture, distance=distance, effort=7, bitspersample=bits, usecontainer=False, numthreads=1)


def jpegxl_lossless(picture: np.ndarray) -> bytes:
    """[H, W] uint8 or uint16 as a bare lossless JPEG XL codestream, effort 9."""
    return encode("jpegxl", picture, lossless=True, effort=9, usecontainer=False, numthreads=1)


def jpegxl_decode(data: bytes) -> np.ndarray:
    """As it was coded."""
    return decode("jpegxl", data, numthreads=1)
