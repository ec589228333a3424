"""Rates against numbers computed by hand."""

from __future__ import annotations

import pytest

from fcbench import rate
from fcbench.types import FcbenchError


def test_rates_of_a_file() -> None:
    assert rate.bpp(1000, 16_000) == 0.5
    assert rate.bpfp(1000, 4000) == 2.0
    assert rate.bytes_per_sample(1000, 8) == 125.0
    assert rate.bpp(0, 16_000) == 0.0


def test_estimated_rates_are_of_bits_not_bytes() -> None:
    assert rate.bpp_estimated(8000.0, 16_000) == rate.bpp(1000, 16_000)
    assert rate.bpfp_estimated(8000.0, 4000) == rate.bpfp(1000, 4000)


@pytest.mark.parametrize("bits", [32, 16])
def test_uncoded_ends(bits: int) -> None:
    assert rate.bpfp(rate.uncoded_bytes(7, bits), 7) == bits  # type: ignore[arg-type]


def test_alarm_begins_beyond_3_percent_and_16_bytes_a_sample() -> None:
    # 10 samples of 1000 estimated bytes: 1000 * 0.03 + 16 = 46 bytes a sample
    assert not rate.rate_alarm(10_460, 80_000.0, 10)
    assert rate.rate_alarm(10_461, 80_000.0, 10)
    assert not rate.rate_alarm(9540, 80_000.0, 10)
    assert rate.rate_alarm(9539, 80_000.0, 10)


def test_alarm_allows_16_bytes_where_nothing_is_estimated() -> None:
    assert not rate.rate_alarm(32, 0.0, 2)
    assert rate.rate_alarm(33, 0.0, 2)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: rate.bpp(1, 0), "0 pixels"),
        (lambda: rate.bpfp(1, 0), "0 feature points"),
        (lambda: rate.bytes_per_sample(1, -1), "-1 samples"),
        (lambda: rate.bpp(-1, 1), "-8"),
        (lambda: rate.bpp_estimated(float("nan"), 1), "nan"),
        (lambda: rate.bpfp_estimated(float("inf"), 1), "inf"),
        (lambda: rate.uncoded_bytes(0), "0 feature points"),
        (lambda: rate.rate_alarm(1, 8.0, 0), "0 samples"),
    ],
)
def test_refuses_what_has_no_rate(call: object, what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        call()  # type: ignore[operator]
