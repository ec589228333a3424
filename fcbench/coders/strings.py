"""One byte string per sample: several stages of symbols through one range coder::

    symbols --tables--> RangeEncoder --shortest point of the interval--> bytes
    bytes, zeros after them --tables--> RangeDecoder --> symbols

A range coder's overhead is below one byte after trimming; ANS pays up to three for filling its initial state.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import constriction
import numpy as np
import torch

from fcbench.coders.tables import EntropyTables, Groups
from fcbench.core.errors import FcbenchError

_STATE_BITS = 64  # constriction's RangeEncoder: 64-bit state, 32-bit words
_LANES = 256
_LEAST_BITS = math.log2(65536 / 65535)
_FREE = 1 << 19


def checksum(*parts: np.ndarray) -> int:
    """16-bit checksum of decoded integers, in coding order: the low half of a CRC-32.

    The CRC runs over int32 little-endian bytes: for each part the sums, modulo 2**32, of every 256th integer from each
    of the first 256 on, then the remaining integers. Sums are much cheaper than a CRC of everything.
    """
    crc = 0
    for symbols in parts:
        n_summed = symbols.size // _LANES * _LANES
        lanes = symbols[:n_summed].reshape(-1, _LANES)
        sums = np.add.reduce(lanes, axis=0, dtype=np.int32)
        for words in (sums, symbols[n_summed:]):
            crc = zlib.crc32(words.astype("<i4", copy=False).data, crc)
    return crc & 0xFFFF


class _String:
    """Counts and checks the symbols that pass."""

    def __init__(self) -> None:
        self._passed: list[np.ndarray] = []

    @property
    def n_symbols(self) -> int:
        """Number of integers so far."""
        return sum(s.size for s in self._passed)

    @property
    def check(self) -> int:
        """Checksum of all integers so far, in coding order."""
        return checksum(*self._passed)


class StringEncoder(_String):
    """One byte string of several stages of symbols, first in first out."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._starts: dict[str, float] = {}  # bit at which each part starts

    def put(self, tables: EntropyTables, symbols: np.ndarray, groups: Groups, part: str = "y") -> None:
        """Append symbols [n] int32. `part`: their part; symbols of a part must be consecutive."""
        if part not in self._starts:
            self._starts[part] = self._n_bits
        tables.coder.encode(self._encoder, symbols, groups)
        self._passed.append(symbols)

    @property
    def _n_bits(self) -> float:
        """Information so far [bit], to within the coder's rounding."""
        n_words, (_, width) = self._encoder.pos()
        return 32.0 * n_words + _STATE_BITS - math.log2(width)

    def finish(self) -> dict[str, bytes]:
        """The shortest string that decodes to the symbols, of `least_bytes` at least: one code word, cut at the byte
        nearest to where each part starts."""
        n_words, (lower, width) = self._encoder.pos()
        shortest = _shortest(self._encoder.get_compressed(), n_words, lower, width)
        string = shortest.ljust(least_bytes(self.n_symbols), b"\0")
        cuts = [*(min(len(string), round(bits / 8)) for bits in self._starts.values()), len(string)]
        return {part: string[a:b] for part, a, b in zip(self._starts, cuts, cuts[1:])}


class StringDecoder(_String):
    """Reads what `StringEncoder` wrote. Missing bytes at the end read as zero."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self._payload = payload
        self._read: list[tuple[EntropyTables, np.ndarray, Groups, str]] = []
        padded = payload + bytes(8 + -len(payload) % 4)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def require(self, n_symbols: int) -> None:
        """Refuse a payload that cannot hold so many symbols: a few bytes must not ask for hours. Raises
        `FcbenchError`."""
        if len(self._payload) < (least := least_bytes(n_symbols)):
            raise FcbenchError(
                f"a payload of {len(self._payload)} bytes cannot hold {n_symbols} symbols, which take {least} at least"
            )

    def take(self, tables: EntropyTables, groups: Groups, part: str = "y") -> np.ndarray:
        """Next symbols [n] int32 of a part. Raises `FcbenchError`: detectable damage."""
        symbols = tables.coder.decode(self._decoder, groups)
        self._passed.append(symbols)
        self._read.append((tables, symbols, groups, part))
        return symbols

    def end(self) -> dict[str, bytes]:
        """The parts of the payload. Raises `FcbenchError` where `StringEncoder` writes another one for the symbols so
        far: for surplus bytes."""
        encoder = StringEncoder()
        for tables, symbols, groups, part in self._read:
            encoder.put(tables, symbols, groups, part)
        parts = encoder.finish()
        if (expected := b"".join(parts.values())) != self._payload:
            raise FcbenchError(
                f"the payload of {len(self._payload)} bytes is not what its symbols are coded to "
                f"({len(expected)} bytes): it is damaged, copy the file again or code it again"
            )
        return parts


def least_bytes(n_symbols: int) -> int:
    """Bytes of the shortest string of so many symbols.

    None is more probable than 65535 of 65536, so that each takes `_LEAST_BITS`. Zeros at the end of a string need not
    be sent: `_FREE` symbols, each the first of its table, may stand in no byte at all.

    >>> least_bytes(500_000), least_bytes(36_000_000)
    (0, 97)
    """
    return int(_LEAST_BITS * max(0, n_symbols - _FREE)) // 8


def _shortest(words: np.ndarray, n_words: int, lower: int, width: int) -> bytes:
    """Shortest byte string, with implied zeros at its end, whose value lies in the range coder's interval.

    The interval is [P + lower, P + lower + width), where P are the first ``n_words`` words and lower and width count in
    units of the 64th bit after them. The sealed ``words`` are one point of it; their first ``n_words`` are P, or P + 1
    if the interval straddles the carry.
    """
    head = words[:n_words].astype(">u4").tobytes()
    if lower + width > 1 << _STATE_BITS:  # P + 1 itself lies inside: nothing follows it
        tail = int.from_bytes(words[n_words:].astype(">u4").tobytes().ljust(8, b"\0")[:8], "big")
        if tail >= lower:  # the sealed point is below the carry
            head = (int.from_bytes(head, "big") + 1).to_bytes(len(head), "big")
        return head.rstrip(b"\0")
    for n_bits in range(0, _STATE_BITS + 1, 8):
        unit = 1 << (_STATE_BITS - n_bits)
        point = -(-lower // unit) * unit
        if point < lower + width and point < 1 << _STATE_BITS:
            break
    return (head + point.to_bytes(8, "big")).rstrip(b"\0")


@contextmanager
def coding_numerics() -> Iterator[None]:
    """One thread, no gradient, no autocast. Also a decorator, ``@coding_numerics()``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)
