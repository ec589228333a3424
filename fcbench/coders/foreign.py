"""Strings of external coders: sealed, without their constant headers, their failures turned into one clear line.

A payload is::

    seal (16-bit CRC of the rest) | for each map: varint n, varint length, string without its first n bytes

(no length for the last map). C and C++ decoders read beyond damaged strings, or crash: none gets a string whose
seal does not fit. That guards against damage, not against an attacker who computes a seal. The string of the first
training sample is in the checkpoint, and only the rest of every string after their common start is sent.
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

HEAD_BYTES = 1024  # Maximum length of a string's start in the checkpoint
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
    """``{package: version}``. Raises `FcbenchError`: it is not installed."""
    if installed := full_version(package):
        return {package: installed}
    raise FcbenchError(f"{package} is not installed: pip install {package}")


def guarded(what: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call an external coder. Raises `FcbenchError`: any error of the coder."""
    try:
        return function(*args, **kwargs)
    except FcbenchError:
        raise
    except Exception as error:  # each library raises its own types
        text = " ".join(str(error).split()) or type(error).__name__
        raise FcbenchError(f"{what} failed: {text[:200]}") from None


def seal(data: bytes) -> bytes:
    """16-bit CRC: finds every flipped bit, and misses one in 65536 of other damages."""
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(_SEAL_BYTES, "little")


def unseal(payload: bytes) -> bytes:
    """The payload without its seal. Raises `FcbenchError`: the seal does not match."""
    data = payload[_SEAL_BYTES:]
    if len(payload) <= _SEAL_BYTES or seal(data) != payload[:_SEAL_BYTES]:
        raise FcbenchError("the payload is damaged (its seal does not match): copy or code the file again")
    return data


def pack(strings: Sequence[bytes], heads: Sequence[bytes]) -> list[bytes]:
    """Strings of the maps, without the starts that they share with the heads: one part per map."""
    parts = []
    for number, (data, head) in enumerate(zip(strings, heads, strict=True)):
        shared = len(os.path.commonprefix([data, head]))
        body = data[shared:]
        last = number == len(strings) - 1
        parts.append(varint(shared) + (b"" if last else varint(len(body))) + body)
    return parts


def unpack(data: bytes, heads: Sequence[bytes]) -> list[bytes]:
    """Inverse of `pack`. Raises `FcbenchError`: lengths do not fit."""
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
    """A coder of one picture: [H, W], or [H, W, 3] for colours."""

    # picture (uint8 for 8 bits, uint16 for more, float32 for floats), knob and bits per sample to a string
    encode: Callable[[np.ndarray, float, int | None], bytes]
    # a string, the picture's (H, W) if known, and bits per sample to a picture of the same type
    decode: Callable[[bytes, Size | None, int | None], np.ndarray]
    # versions of library and linked coder. Raises `FcbenchError`: one is missing.
    versions: Callable[[], dict[str, str]]
    least_px: int = 1  # minimum height and width,
    multiple_px: int = 1  # of which sides are multiples
