"""Exact coder models of frequency tables, and the code of symbols outside their table."""

from typing import Any

import constriction
import numpy as np

from fcbench.core.errors import FcbenchError

PRECISION_BITS = 16  # Frequencies of a table sum to 2**16
_TOTAL = 1 << PRECISION_BITS
_CODER_BITS = 24  # fixed-point precision of constriction's models
_MAX_CLASS = 26  # escapes are below 2**26: |symbol| + |offset| < 2**25, and one sign bit
_LOW_BITS = 12  # an escape's mantissa is coded in two halves: Uniform takes sizes up to 2**24


def exact_model(frequencies: np.ndarray) -> Any:
    """constriction model whose probabilities are exactly ``frequencies / 65536``.

    ``Categorical(perfect=False)`` gives each of n symbols one count of 2**24 and shares out the other 2**24 - n in
    proportion, rounding down. Given ``256 f - 1``, whose sum is 2**24 - n, its factor is exactly 1 and every
    product an exact integer: no rounding, so the model is the same on every machine. `frequencies`: [n] positive
    integers with sum 65536, n at least 2.
    """
    weights = frequencies.astype(np.float64) * (1 << (_CODER_BITS - PRECISION_BITS)) - 1
    return constriction.stream.model.Categorical(weights, perfect=False)


def _escape_class_model() -> Any:
    """Model of the number of mantissa bits of an escape: halving probabilities, at least one count each."""
    counts = np.maximum(_TOTAL >> np.arange(1, _MAX_CLASS + 2), 1)
    counts[0] += _TOTAL - counts.sum()
    return exact_model(counts)


_ESCAPE_CLASS = _escape_class_model()
_UNIFORM = constriction.stream.model.Uniform()


def distance(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Zigzag of table-relative values outside [0, last): 1, 2, ... alternating above and below; int64."""
    values = values.astype(np.int64)
    return np.where(values < 0, -2 * values, 2 * (values - last) + 1)


def encode(encoder: Any, distances: np.ndarray) -> None:
    """Append positive integers [n]: number of mantissa bits, then the mantissa in two halves."""
    bits = np.frexp(distances.astype(np.float64))[1].astype(np.int32) - 1
    mantissa = distances - (np.int64(1) << bits.astype(np.int64))
    encoder.encode(bits, _ESCAPE_CLASS)
    for shift, size in _halves(bits):
        subset = size > 1
        if subset.any():
            half = (mantissa[subset] >> shift) % size[subset]
            encoder.encode(half.astype(np.int32), _UNIFORM, size[subset])


def decode(decoder: Any, last: np.ndarray) -> np.ndarray:
    """Inverse of `encode` and `distance`: table-relative values [n]."""
    try:
        bits = decoder.decode(_ESCAPE_CLASS, len(last))
        distances = np.int64(1) << bits.astype(np.int64)
        for shift, size in _halves(bits):
            subset = size > 1
            if subset.any():
                half: np.ndarray = decoder.decode(_UNIFORM, size[subset])
                distances[subset] += half.astype(np.int64) << shift
    except AssertionError as error:
        raise FcbenchError(f"entropy-coded string is damaged: {error}") from None
    return np.where(distances % 2 == 1, (distances - 1) // 2 + last, -(distances // 2))


def _halves(bits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(shift, alphabet size [n]) of the low and the high half of mantissas with these numbers of bits."""
    low = np.minimum(bits, _LOW_BITS)
    return [(0, np.int32(1) << low), (_LOW_BITS, np.int32(1) << (bits - low))]
