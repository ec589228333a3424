"""``hiera``: the features of timm's model, at its own size and at others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.encoders.hiera import VARIANTS, resize_positions
from fcbench.encoders.shared.weights import state_sha256

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def build(variant: str, weights: Path | str) -> Encoder:
    plugin = registry.get("encoder", "hiera")
    return plugin.build(variant, str(weights), torch.device("cpu"))


def images(height: int, width: int, n: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to float tolerance, relative to the map's largest value."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(scope="module")
def full() -> nn.Module:
    """timm's whole model, head and all, with random weights."""
    torch.manual_seed(2)
    return timm.create_model("hiera_tiny_224.mae_in1k_ft_in1k").eval()


@pytest.fixture(scope="module")
def path(full: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's weights as timm publishes them."""
    found = tmp_path_factory.mktemp("hiera") / "model.safetensors"
    save_file(full.state_dict(), found)
    return found


@pytest.fixture(scope="module")
def encoder(path: Path) -> Encoder:
    return build("tiny.mae_in1k_ft_in1k", path)


def intermediates(model: Any, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return model.forward_intermediates((x / 255 - MEAN) / STD, intermediates_only=True)


def test_features_are_timms_at_its_own_size(encoder: Encoder, full: nn.Module) -> None:
    x = images(224, 224, n=2)
    maps = encoder(x, list(encoder.specs)).maps
    for got, expected in zip(maps.values(), intermediates(full, x), strict=True):
        close(got, expected)
    assert encoder.weights.origin == "file:model.safetensors"


def test_sizes_smaller_than_a_unit_over_are_padded(encoder: Encoder, full: nn.Module) -> None:
    x = images(201, 222)
    padded = nn.functional.pad(x.float(), (0, 2, 0, 23), mode="replicate")
    maps = encoder(x, list(encoder.specs)).maps
    for got, expected in zip(maps.values(), intermediates(full, padded), strict=True):
        close(got, expected[..., : got.shape[-2], : got.shape[-1]])


def test_features_at_another_size_are_those_of_timms_model_of_that_size(encoder: Encoder, full: nn.Module) -> None:
    size_px = (128, 288)
    other = timm.create_model("hiera_tiny_224.mae_in1k_ft_in1k", img_size=size_px)
    state = full.state_dict()
    state["pos_embed"] = resize_positions(state["pos_embed"], (56, 56), (32, 72))
    other.eval().load_state_dict(state)
    x = images(*size_px)
    maps = encoder(x, list(encoder.specs)).maps
    for got, expected in zip(maps.values(), intermediates(other, x), strict=True):
        close(got, expected)


def test_other_sizes_leave_the_weights_alone(encoder: Encoder) -> None:
    before = state_sha256(encoder.module)
    native = encoder(images(224, 224), ["stage4"]).maps["stage4"]
    for size in ((64, 64), (96, 320), (64, 64)):
        encoder(images(*size), ["stage3"])
    assert state_sha256(encoder.module) == before
    again = encoder(images(224, 224), ["stage4"]).maps["stage4"]
    assert torch.equal(again, native)


# ---------------------------------------------------------------------------------------- positions
def tokens(maps: Tensor) -> Tensor:
    """[1, N, C] of maps [C, h, w]."""
    return maps.flatten(1).t()[None]


def test_positions_of_the_same_size_are_the_same() -> None:
    positions = torch.randn(1, 16 * 24, 3)
    assert torch.equal(resize_positions(positions, (16, 24), (16, 24)), positions)


def test_a_pattern_repeated_in_every_unit_stays_in_step_with_the_units() -> None:
    unit = torch.randn(3, 8, 8)
    small, large = tokens(unit.tile(2, 3)), tokens(unit.tile(5, 4))
    resized = resize_positions(small, (16, 24), (40, 32))
    torch.testing.assert_close(resized, large)
    naive = nn.functional.interpolate(unit.tile(2, 3)[None], (40, 32), mode="bicubic")
    assert (tokens(naive[0]) - large).abs().max() > 1, "what the resizing is there for"


def test_what_varies_over_the_image_still_varies_over_the_image() -> None:
    ramp = torch.linspace(-1, 1, 56).view(1, 56, 1).expand(1, 56, 56)
    resized = resize_positions(tokens(ramp), (56, 56), (112, 56)).view(112, 56)
    by_unit = resized.unflatten(0, (-1, 8)).mean((1, 2))
    assert (by_unit.diff() > 0).all()
    assert by_unit[0] < -0.8 and by_unit[-1] > 0.8


# ----------------------------------------------------------------------------------------- variants
def test_every_variant_is_a_model_with_published_weights() -> None:
    for variant, name in VARIANTS.items():
        config = timm.get_pretrained_cfg(name)
        assert config is not None and config.hf_hub_id, variant
        assert config.input_size == (3, 224, 224)
    assert len(set(VARIANTS.values())) == 12
    assert VARIANTS["base_plus"] == "hiera_base_plus_224.mae"


def test_an_unknown_variant_gets_the_nearest() -> None:
    with pytest.raises(FcbenchError, match="Did you mean 'tiny.mae_in1k_ft_in1k'"):
        build("tiny.mae_in1k_ft", "random")


def test_weights_of_another_size_are_refused(path: Path) -> None:
    with pytest.raises(FcbenchError, match="does not fit hiera:small: .*missing"):
        build("small", path)


def test_groups_and_split_points(encoder: Encoder) -> None:
    assert encoder.groups == {"trunk": tuple(encoder.specs)}
    assert [s.channels for s in encoder.specs.values()] == [96, 192, 384, 768]
    assert encoder.name == "hiera:tiny.mae_in1k_ft_in1k"
