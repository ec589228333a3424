from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.ablation import VARIANTS, WHOLE, Variant, compared
from fcbench.core.features import FeatureSpec, FeatureStats

CHANNELS = 6
WITHOUT = [v for v in VARIANTS if v.make is not VARIANTS[0].make]


@lru_cache
def coded(variant: Variant) -> tuple[np.ndarray, float]:
    """Decoded maps and bits of a codec that has seen some features."""
    torch.manual_seed(0)
    x = torch.randn(12, CHANNELS, 8, 8).cumsum(2).cumsum(3)
    with variant.changed():
        zero = torch.zeros(CHANNELS)
        stats = FeatureStats(zero, zero + 1, zero - 9, zero + 9)
        codec: Any = variant.plugin.build([FeatureSpec("a", CHANNELS, 16)], {"a": stats}, {"lmbda": 2.0})
        codec.prepare([x])
        maps, bits = codec.eval()({"a": x[:4]})
    return maps["a"].detach().numpy(), bits.sum().item()


@pytest.mark.parametrize("variant", WITHOUT, ids=lambda v: v.name)
def test_a_variant_lacks_something(variant: Variant) -> None:
    whole, own = coded(VARIANTS[0]), coded(variant)
    assert VARIANTS[0].name == WHOLE
    assert np.isfinite(own[0]).all() and own[1] > 0
    assert not np.array_equal(own[0], whole[0]) or own[1] != whole[1]


def test_the_transforms_save_bits_on_smooth_maps() -> None:
    named = {v.name: v for v in VARIANTS}
    assert coded(named["one KLT, no DCT"])[1] > 1.5 * coded(named[WHOLE])[1]


def test_variants_are_compared_per_encoder() -> None:
    points = [(lmbda, bits, 1 / bits) for lmbda, bits in ((0.3, 0.1), (0.8, 0.2), (2.0, 0.4), (6.0, 0.8), (20.0, 1.6))]
    rows = pd.DataFrame(
        [
            {"encoder": encoder, "variant": name, "lmbda": lmbda, "bits": times * bits, "distortion": error}
            for encoder, name, times in (("a", WHOLE, 1.0), ("a", "less", 1.5), ("b", WHOLE, 1.0))
            for lmbda, bits, error in points
        ]
    )
    assert compared(rows).rows == [[WHOLE, "+0.0", "+0.0"], ["less", "+50.0", ""]]
