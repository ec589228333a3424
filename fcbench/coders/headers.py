"""Bytes of a coded image that say how it is coded, and that a special-purpose coder would know beforehand.

Each function takes a whole file and counts bytes. Parts that depend on the picture (Huffman tables, slices' headers) do
not count. Sources: ISO/IEC 10918-1 (JPEG), RFC 9649 (WebP), ISO/IEC 14496-12 (boxes of AVIF), ITU-T H.265 Annex B.
"""

from __future__ import annotations

import re

_HUFFMAN_TABLES = 0xC4
_START_OF_SCAN = 0xDA
_FIRST_PARAMETER_SET, _LAST_INFORMATION = 32, 40  # NAL types: parameter sets, delimiters, supplemental information


def of_jpeg(data: bytes) -> int:
    """Markers and their segments, except Huffman tables, of a baseline file with one scan."""
    at, found = 2, 4  # start and end of the image
    while at + 4 <= len(data):
        marker, n = data[at + 1], 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found += 0 if marker == _HUFFMAN_TABLES else n
        at += n
        if marker == _START_OF_SCAN:
            break
    return found


def of_webp(data: bytes) -> int:
    """The headers of the RIFF file and of its only chunk."""
    return 20


def of_avif(data: bytes) -> int:
    """All boxes, except the content of ``mdat``."""
    at, found = 0, 0
    while at + 8 <= len(data):
        n = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        found += 8 if data[at + 4 : at + 8] == b"mdat" else n
        at += max(n, 8)
    return found


def of_hevc(data: bytes) -> int:
    """Start codes, parameter sets, supplemental information of an Annex B stream.

    >>> of_hevc(b"\\0\\0\\1\\x40set\\0\\0\\1\\x26slice"), of_hevc(b"\\0\\0\\1")
    (10, 0)
    """
    starts = [(m.start(), m.end()) for m in re.finditer(rb"(?s)\x00{2,3}\x01(?=.)", data)]
    ends = [start for start, _ in starts[1:]] + [len(data)]
    found = 0
    for (start, first), end in zip(starts, ends):
        kind = data[first] >> 1 & 0x3F
        found += (end if _FIRST_PARAMETER_SET <= kind <= _LAST_INFORMATION else first) - start
    return found
