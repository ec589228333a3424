"""Codecs of pyramids that predict each map from the next coarser one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.codecs import OperatingPoint
from fcbench.core.features import FeatureSpec
from fcbench.testing.maps import statistics
from fcbench.training.codec import CodecRecipe
from fcbench.training.options import Budget

JOINT = [n for n in registry.names("codec") if n.endswith("_joint")]
FINE, COARSE = FeatureSpec("fine", 48, 8), FeatureSpec("coarse", 48, 16)


def pyramid(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Fine and coarse maps of n images, of 48 channels in which 12 vary much; a third of the fine ones' energy is due
    to the coarse ones."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(48, 12, generator=torch.Generator().manual_seed(9)) / 12**0.5
    smooth = F.interpolate(torch.randn(n, 12, 3, 4, generator=g), (6, 7), mode="bicubic")
    coarse = torch.einsum("oc,nchw->nohw", mix, smooth) + 0.1 * torch.randn(n, 48, 6, 7, generator=g)
    fine = F.interpolate(coarse, (11, 13), mode="bilinear")
    return fine + fine.std() * 2**0.5 * torch.randn(n, 48, 11, 13, generator=g), coarse


def missed(n: int) -> float:
    """Share of the energy of other fine maps that a codec with n training images does not predict."""
    fine, coarse = pyramid(n, seed=0)
    stats = {"fine": statistics(fine), "coarse": statistics(coarse)}
    codec: Any = registry.get("codec", "hyperprior_joint").build([FINE, COARSE], stats, {"lmbda": 2.0})
    codec.learn(0, {1: coarse}, fine)
    others, seen = pyramid(20, seed=1)
    with torch.no_grad():
        error = others - codec.predicted(0, {1: seen}, (11, 13))
    return float(error.square().mean() / others.square().mean())


def test_with_many_images_all_is_predicted_that_can_be() -> None:
    assert missed(200) == pytest.approx(2 / 3, abs=0.03)


def test_with_one_image_a_prediction_is_no_worse_than_none() -> None:
    """It has as many channels as the coarse map has places."""
    assert missed(1) < 1


@pytest.mark.parametrize("name", JOINT)
def test_what_was_trained_is_not_used_after_a_change_of_the_codec_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = SimpleNamespace(train=SimpleNamespace(features=SimpleNamespace(contents={})))
    recipe = CodecRecipe(source, OperatingPoint(name, {"lmbda": 2.0}), Budget(), seed=0)
    before, version = recipe.path(Cache(tmp_path)), registry.code_version
    (base,) = registry.get("codec", name).bases
    assert name == f"{base}_joint"
    monkeypatch.setattr(registry, "code_version", lambda kind, n: "new" if n == base else version(kind, n))
    assert recipe.path(Cache(tmp_path)) != before
