"""Strings of coders that are not ours: sealed, their constant headers left out, their failures made one clear line.

A payload is::

    seal (16-bit CRC of the rest) | for each map: varint n, varint length, string without its first n bytes

(no length for the last map).

- **Seal**: C and C++ decoders read beyond damaged strings; SPERR's crashes. No foreign decoder is given a string whose
  seal does not fit. It guards against damage, not against an attacker who computes a seal: behind a forged one SZ3 and
  SPERR may abort or crash the process.
- **Headers**: a sequence header, quantization tables, sizes are the same for every sample of one size. The string of
  the first training sample lives in the checkpoint, and of every string only what follows their common start is sent:
  as parameter sets are sent once a video. A string with another start (another image size) is sent whole.
"""

import binascii
import importlib
import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ParamSpec, TypeVar

import numpy as np

from fcbench.coders.varint import Cursor, varint
from fcbench.core.errors import FcbenchError
from fcbench.core.libraries import full_version

HEAD_BYTES = 1024  # At most so much of a string's start is kept in the checkpoint

_SEAL_BYTES = 2
_P = ParamSpec("_P")
_T = TypeVar("_T")


def library(name: str, package: str) -> Any:
    """Import a module of an optional package. Raises `FcbenchError`: it is not installed, or does not load."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FcbenchError(f"{package} cannot be imported ({error}): pip install {package}") from None


def package_version(package: str) -> dict[str, str]:
    """``{package: version}``. Raises `FcbenchError` where it is not installed."""
    if found := full_version(package):
        return {package: found}
    raise FcbenchError(f"{package} is not installed: pip install {package}")


def guarded(what: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a foreign coder. Raises `FcbenchError` for whatever it raises."""
    try:
        return function(*args, **kwargs)
    except FcbenchError:
        raise
    except Exception as error:  # each library raises its own
        text = " ".join(str(error).split()) or type(error).__name__
        raise FcbenchError(f"{what} failed: {text[:200]}") from None


def seal(data: bytes) -> bytes:
    """16-bit CRC: finds every flipped bit, and lets one of 65536 other damages pass."""
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(_SEAL_BYTES, "little")


def unseal(payload: bytes) -> bytes:
    """What stands behind the seal. Raises `FcbenchError` unless it fits."""
    data = payload[_SEAL_BYTES:]
    if len(payload) <= _SEAL_BYTES or seal(data) != payload[:_SEAL_BYTES]:
        raise FcbenchError("the payload is damaged (its seal does not fit): copy or code the file anew")
    return data


def pack(strings: Sequence[bytes], heads: Sequence[bytes]) -> list[bytes]:
    """Strings of the maps, without what their starts share with the heads: one part a map."""
    parts = []
    for number, (data, head) in enumerate(zip(strings, heads, strict=True)):
        shared = len(os.path.commonprefix([data, head]))
        body = data[shared:]
        last = number == len(strings) - 1
        parts.append(varint(shared) + (b"" if last else varint(len(body))) + body)
    return parts


def unpack(data: bytes, heads: Sequence[bytes]) -> list[bytes]:
    """Inverse of `pack`. Raises `FcbenchError` where lengths do not fit."""
    cursor, strings = Cursor(BytesIO(data), len(data), "payload"), []
    for number, head in enumerate(heads):
        shared = cursor.varint()
        if shared > len(head):
            raise FcbenchError(
                f"the payload shares {shared} bytes with a head of {len(head)}: another checkpoint wrote it"
            )
        last = number == len(heads) - 1
        n_bytes = len(data) - cursor.at if last else cursor.varint()
        strings.append(head[:shared] + cursor.take(n_bytes))
    return strings


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
