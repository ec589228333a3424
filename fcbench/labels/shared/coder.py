"""Label coders as plug-ins, and lossless compression of bytes and pictures. Imports no torch."""

import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fcbench.coders import stills
from fcbench.core.errors import FcbenchError


@dataclass(frozen=True)
class LabelCoder:
    """A `fcbench.core.codecs.LabelPlugin` made of functions."""

    output: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    same: Callable[[Any, Any], bool]
    versions: Callable[[], dict[str, str]] = dict


_STORED, _DEFLATE, _LZMA = range(3)
_MAX_BYTES = 1 << 24
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def squeeze(data: bytes, dictionary: bytes = b"") -> bytes:
    """One byte for the method, then data: stored, deflated (with a dictionary that both sides know) or LZMA2."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=dictionary)
    candidates = (
        data,
        deflate.compress(data) + deflate.flush(),
        lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS),
    )
    best = min(range(len(candidates)), key=lambda i: len(candidates[i]))
    return bytes([best]) + candidates[best]


def expand(data: bytes, dictionary: bytes = b"") -> bytes:
    """Inverse of `squeeze`. Raises `FcbenchError`: detectable damage."""
    if not data:
        raise FcbenchError("an empty label: the file is truncated")
    method, body = data[0], data[1:]
    try:
        if method == _STORED:
            return body
        if method == _DEFLATE:
            inflate = zlib.decompressobj(-15, zdict=dictionary)
            out = inflate.decompress(body, _MAX_BYTES)
            whole = inflate.eof and not inflate.unused_data
        elif method == _LZMA:
            reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
            out = reader.decompress(body, _MAX_BYTES)
            whole = reader.eof and not reader.unused_data
        else:
            raise FcbenchError(f"a label names method {method}, 0 to 2 are known")
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise FcbenchError(f"a label is damaged: {error}") from None
    if not whole:
        raise FcbenchError("a label is damaged: it ends too early or too late")
    return out


_PNG = b"\x89PNG\r\n\x1a\n"


def encode_picture(picture: np.ndarray) -> bytes:
    """Code a picture [H, W], uint8 or uint16."""
    if picture.ndim != 2 or picture.size == 0 or picture.dtype not in ("u1", "u2"):
        raise FcbenchError(f"a label picture must be uint8 or uint16 [H, W], got {picture.dtype} {list(picture.shape)}")
    jpegxl = stills.encode("jpegxl", picture, lossless=True, effort=9, usecontainer=False, numthreads=1)
    return min(jpegxl, stills.encode("png", picture, 9), key=len)


def decode_picture(data: bytes) -> np.ndarray:
    """Inverse of `encode_picture`. Raises `FcbenchError`: detectable damage."""
    png = data.startswith(_PNG)
    picture = stills.decode("png", data) if png else stills.decode("jpegxl", data, numthreads=1)
    if picture.ndim != 2:
        raise FcbenchError(f"a label picture must be [H, W], got {list(picture.shape)}")
    return picture


picture_versions = partial(stills.versions, "jpegxl", "png")  # Versions of both coders
