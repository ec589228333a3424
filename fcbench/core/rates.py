"""Rates: every division of bits by pixels, scalars or samples.

A rate is a quotient of sums over a test set: sum the bytes, sum the pixels, then divide. Ratios of single samples
are never averaged. *Coded* bytes are the size of a file on disk; *estimated* bits come from likelihoods.
"""

from collections.abc import Mapping

from fcbench.core.errors import FcbenchError

UNITS = ("bpp", "bpfp", "bytes_per_sample", "bpp_content")  # Columns of rates.csv that hold a rate
CONTAINER = "container"  # Part of a file: bytes that the .fcb format adds to payloads
HEADERS = "headers"  # Part of a payload: parameter sets and boxes that a special-purpose coder would not send
ALARM_FRACTION = 0.03
ALARM_BYTES_PER_SAMPLE = 16.0


def bpp(n_bytes: int, n_px: int) -> float:
    """Coded bits per pixel of the original images. Raises `FcbenchError`: negative bytes, or no pixels.

    >>> bpp(1000, 16_000)
    0.5
    """
    return _quotient(8 * n_bytes, n_px, "pixels")


def bpfp(n_bytes: int, n_scalars: int) -> float:
    """Coded bits per scalar at the split point, before padding. Raises `FcbenchError`: negative bytes, or no
    scalars."""
    return _quotient(8 * n_bytes, n_scalars, "scalars")


def bytes_per_sample(n_bytes: int, n_samples: int) -> float:
    """Coded bytes per sample [bytes]. Raises `FcbenchError`: negative bytes, or no samples."""
    return _quotient(n_bytes, n_samples, "samples")


def bpp_estimated(estimated_bits: float, n_px: int) -> float:
    """Estimated bits (from likelihoods) per pixel of the original images. Raises `FcbenchError`: bits that are negative
    or not finite, or no pixels."""
    return _quotient(estimated_bits, n_px, "pixels")


def bpp_content(n_bytes: int, parts: Mapping[str, int], n_px: int) -> float:
    """Coded bits per pixel without container and headers. `parts`: bytes of the file by part; they sum to its size.

    >>> bpp_content(1000, {"image": 900, HEADERS: 60, CONTAINER: 40}, 14_400)
    0.5
    """
    return bpp(n_bytes - parts.get(CONTAINER, 0) - parts.get(HEADERS, 0), n_px)


def uncoded_bytes(n_scalars: int) -> int:
    """Size of uncoded features, float32, without anything else [bytes]: the upper end of every curve.

    >>> bpfp(uncoded_bytes(12), 12)
    32.0
    """
    if n_scalars <= 0:
        raise FcbenchError(f"got {n_scalars} scalars; need at least one.")
    return 4 * n_scalars


def rate_alarm(coded_bytes: int, estimated_bits: float, n_samples: int) -> bool:
    """Whether coded and estimated rate differ by more than 3 % of the estimate + 16 bytes per sample. Raises
    `FcbenchError`: a negative size, an estimate that is not finite, or no samples."""
    coded = bytes_per_sample(coded_bytes, n_samples)
    estimated = _quotient(estimated_bits / 8, n_samples, "samples")
    allowed = ALARM_FRACTION * estimated + ALARM_BYTES_PER_SAMPLE
    return abs(coded - estimated) > allowed


def _quotient(amount: float, count: int, unit: str) -> float:
    if not 0 <= amount < float("inf"):
        raise FcbenchError(f"got a size of {amount}; a size is finite and not negative.")
    if count <= 0:
        raise FcbenchError(f"got {count} {unit} to divide a size by; need at least 1.")
    return amount / count
