"""Rates against numbers computed by hand."""

from __future__ import annotations

import pytest

from fcbench.core import rates
from fcbench.core.errors import FcbenchError


def test_rates_of_a_file() -> None:
    assert rates.bpp(1000, 16_000) == 0.5
    assert rates.bpfp(1000, 4000) == 2.0
    assert rates.bytes_per_sample(1000, 8) == 125.0
    assert rates.bpp(0, 16_000) == 0.0


def test_estimated_rates_are_of_bits_not_bytes() -> None:
    assert rates.bpp_estimated(8000.0, 16_000) == rates.bpp(1000, 16_000)


def test_alarm_begins_beyond_3_percent_and_16_bytes_a_sample() -> None:
    # 10 samples of 1000 estimated bytes: 1000 * 0.03 + 16 = 46 bytes a sample
    assert not rates.rate_alarm(10_460, 80_000.0, 10)
    assert rates.rate_alarm(10_461, 80_000.0, 10)
    assert not rates.rate_alarm(9540, 80_000.0, 10)
    assert rates.rate_alarm(9539, 80_000.0, 10)


def test_alarm_allows_16_bytes_where_nothing_is_estimated() -> None:
    assert not rates.rate_alarm(32, 0.0, 2)
    assert rates.rate_alarm(33, 0.0, 2)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: rates.bpp(1, 0), "0 pixels"),
        (lambda: rates.bpfp(1, 0), "0 scalars"),
        (lambda: rates.bytes_per_sample(1, -1), "-1 samples"),
        (lambda: rates.bpp(-1, 1), "-8"),
        (lambda: rates.bpp_estimated(float("nan"), 1), "nan"),
        (lambda: rates.uncoded_bytes(0), "0 scalars"),
        (lambda: rates.rate_alarm(1, 8.0, 0), "0 samples"),
    ],
)
def test_refuses_what_has_no_rate(call: object, what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        call()  # type: ignore[operator]
