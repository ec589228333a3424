"""Our calls of JPEG and HEVC against independent ones, on a photograph: the same bits, the same PSNR."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("skimage", reason="scikit-image has the photograph")

from benchmarks import coder_check  # noqa: E402

MISSING = importlib.util.find_spec("imageio_ffmpeg") is None
needs_ffmpeg = pytest.mark.skipif(MISSING, reason="no program ffmpeg: pip install imageio-ffmpeg")


@pytest.mark.parametrize(
    ("name", "knob", "bits", "psnr_db"),
    [
        ("jpeg", 15, 0.002, 0.01),
        ("jpeg", 80, 0.002, 0.01),
        pytest.param("hevc", 37, 0.03, 0.1, marks=needs_ffmpeg),
        pytest.param("mosaic", 36, 0.01, 0.05, marks=needs_ffmpeg),
        pytest.param("mosaic", 18, 0.01, 0.05, marks=needs_ffmpeg),
    ],
)
def test_the_same_bits_and_psnr_as_an_independent_call(name: str, knob: int, bits: float, psnr_db: float) -> None:
    picture = coder_check.photographs(name)[1][:288, :448]
    own = coder_check.figures(coder_check.ours(name, picture, knob), picture)
    other = coder_check.figures(coder_check.OTHERS[name](picture, knob), picture)
    assert own[0] == pytest.approx(other[0], rel=bits)
    assert own[1] == pytest.approx(other[1], abs=psnr_db)
