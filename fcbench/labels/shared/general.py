"""The shortest of what general compressors make of a few bytes. Imports no torch."""

from __future__ import annotations

import lzma
import zlib

from fcbench.core.errors import FcbenchError

_STORED, _DEFLATE, _LZMA = range(3)
_MAX_BYTES = 1 << 24
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def squeeze(data: bytes, dictionary: bytes = b"") -> bytes:
    """One byte that names the method, then data stored, deflated (with a dictionary that both sides know) or LZMA2."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=dictionary)
    candidates = (
        data,
        deflate.compress(data) + deflate.flush(),
        lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS),
    )
    best = min(range(len(candidates)), key=lambda i: len(candidates[i]))
    return bytes([best]) + candidates[best]


def expand(data: bytes, dictionary: bytes = b"") -> bytes:
    """Inverse of `squeeze`. Raises `FcbenchError` on damage that can be seen."""
    if not data:
        raise FcbenchError("an empty label: the file is cut")
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
