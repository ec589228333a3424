"""Still pictures and arrays through the coders of imagecodecs, with clear errors. Imports no torch."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from fcbench.coders.foreign import PictureCoder, Size, guarded, library, package_version
from fcbench.core.errors import FcbenchError


def _imagecodecs() -> Any:
    return library("imagecodecs", "imagecodecs")


def encode(name: str, data: np.ndarray, *args: Any, **options: Any) -> bytes:
    """Code an array. Raises `FcbenchError`: any error of the coder."""
    function = getattr(_imagecodecs(), f"{name}_encode")
    return bytes(guarded(name, function, data.copy(order="C"), *args, **options))


def decode(name: str, data: bytes, *args: Any, **options: Any) -> np.ndarray:
    """Decode an array. Raises `FcbenchError`: any error of the coder."""
    function = getattr(_imagecodecs(), f"{name}_decode")
    return np.asarray(guarded(name, function, data, *args, **options))


def versions(*names: str) -> dict[str, str]:
    """Versions of imagecodecs and of the libraries behind its coders: ``{"jpegxl": "libjxl 0.11.1"}``."""
    linked = {name: str(getattr(_imagecodecs(), f"{name}_version")()) for name in names}
    return {**package_version("imagecodecs"), **linked}


_Options = Callable[[np.ndarray, float, "int | None"], "dict[str, Any]"]


def _coder(name: str, options: _Options, least_px: int = 1, sized: bool = False, **reading: Any) -> PictureCoder:
    """A coder of imagecodecs, from its options for a picture, a knob and bits. `sized`: strings do not hold the
    picture's size; such coders take float32. `reading`: options of the decoder."""

    def encoder(picture: np.ndarray, knob: float, bits: int | None) -> bytes:
        return encode(name, picture, **options(picture, knob, bits))

    def decoder(data: bytes, size: Size | None, bits: int | None) -> np.ndarray:
        known = {"shape": size, "dtype": np.dtype(np.float32)} if sized else {}
        return decode(name, data, **reading, **known)

    return PictureCoder(encoder, decoder, partial(versions, name), least_px)


def _jpeg(picture: np.ndarray, quality: float, bits: int | None) -> dict[str, Any]:
    colours = {"colorspace": "GRAYSCALE"} if picture.ndim == 2 else {"subsampling": "420"}
    return {"level": round(quality), "optimize": True, **colours}


JPEG = _coder("jpeg8", _jpeg)
"""Baseline JPEG of 8 bits, Huffman tables optimized for each picture, colours 4:2:0; the knob is libjpeg's quality."""

JPEG2000 = _coder(
    "jpeg2k",
    lambda _, psnr_db, bits: dict(level=psnr_db, codecformat="J2K", bitspersample=bits, reversible=False, numthreads=1),
    numthreads=1,
)
"""JPEG 2000 (9/7 wavelet), bare codestream, one layer; the knob is a PSNR [dB]."""

JPEGXL = _coder(
    "jpegxl",
    lambda _, distance, bits: dict(distance=distance, effort=7, bitspersample=bits, usecontainer=False, numthreads=1),
    least_px=8,
    numthreads=1,
)
"""Lossy JPEG XL, bare codestream, effort 7; the knob is the Butteraugli distance (0.01 to 25)."""

WEBP = _coder(
    "webp", lambda _, quality, bits: dict(level=quality, lossless=False, method=6, numthreads=0), hasalpha=False
)
"""Lossy WebP of colours at method 6 (slowest, smallest); the knob is libwebp's quality."""

AVIF = _coder(
    "avif",
    lambda _, quality, bits: dict(level=round(quality), speed=4, pixelformat="yuv420", numthreads=1),
    numthreads=1,
)
"""AVIF of colours, 4:2:0, speed 4; the knob is libavif's quality."""

ZFP = _coder("zfp", lambda _, tolerance, bits: dict(level=tolerance, mode="accuracy", numthreads=1), numthreads=1)
"""ZFP of floats; the knob bounds the error."""


@cache
def _sz3_written() -> bytes:
    return encode("sz3", np.zeros((8, 8), np.float32), mode="abs", abs=1.0)


def _sz3_format(data: bytes) -> bytes:
    """Magic number and version of the format since SZ3 3.2; empty for older ones, which have neither."""
    return data[1:9] if data[1:5] == b"\x10\xf3\x42\xf3" else b""


def _read_sz3(data: bytes, size: Size | None, bits: int | None) -> np.ndarray:
    """Decode a string of this SZ3's own format. Any other one would end the process."""
    if _sz3_format(data) != _sz3_format(_sz3_written()):
        raise FcbenchError(
            f"the string is of another format than {versions('sz3')['sz3']} has: install the imagecodecs that coded it"
        )
    return _SZ3.decode(data, size, bits)


_SZ3 = _coder("sz3", lambda _, tolerance, bits: dict(mode="abs", abs=tolerance), 8, sized=True)
SZ3 = replace(_SZ3, decode=_read_sz3)
"""SZ3 of floats; the knob bounds the error. With pictures of a few pixels imagecodecs 2025.3.30 corrupts the heap."""

SPERR = _coder(
    "sperr", lambda _, tolerance, bits: dict(level=tolerance, mode="pwe", numthreads=1), 8, sized=True, numthreads=1
)
"""SPERR of floats; the knob bounds the error."""
