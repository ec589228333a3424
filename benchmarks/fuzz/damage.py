"""Damage to bytes: flips, cuts, runs of zeros, pieces of other files. All of a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

SIZES = (0, 1, 2, 3, 5, 7, 8, 64, 255, 1000, 3000, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 35) - 1)
"""Numbers where something may give way."""


def damaged(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Data with one to four changes, or other data altogether. `others`: files to take pieces of."""
    if rng.random() < 0.15:
        return _foreign(data, rng, others)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _changed(data, rng, others)
    return data


def _foreign(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    fillings = [b"", rng.randbytes(rng.choice((1, 20, len(data)))), bytes(len(data)), b"\xff" * len(data)]
    return rng.choice([*fillings, rng.choice(others) if others else b""])


def _changed(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    n = rng.choice((1, 1, 2, 4, 16))
    piece = rng.choice(others) if others else data
    start = rng.randrange(len(piece) + 1)
    return rng.choice(
        [
            data[:at] + bytes(b ^ 1 << rng.randrange(8) for b in data[at : at + 1]) + data[at + 1 :],
            data[:at] + rng.randbytes(n) + data[at + n :],
            data[:at] + bytes(n) + data[at + n :],
            data[:at] + b"\xff" * n + data[at + n :],
            data[:at],
            data[at:],
            data[:at] + data[at + n :],
            data[:at] + rng.randbytes(n) + data[at:],
            data[:at] + data[max(0, at - n) :],
            data + rng.randbytes(n),
            data + bytes(n),
            data[:at] + piece[start : start + 4 * n] + data[at:],
        ]
    )
