"""The contract of encoders, and the stricter rules of this house, tried on every built-in encoder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.encoders.shared.weights import state_sha256
from fcbench.measure.complexity import macs
from fcbench.testing.encoders import SIZES, EncoderContract, images

VARIANTS = {
    "mobilenetv2": ("imagenet", "voc_segmentation"),
    "timm": ("test_resnet", "test_vit", "test_convnext", "test_mambaout", "tf_efficientnet_lite0"),
    "torchvision": ("fasterrcnn_mobilenet_v3_large_fpn@64", "ssdlite320_mobilenet_v3_large", "deeplabv3_resnet50"),
}
"""What is tried of plug-ins that have no default, or whose variants differ."""


class HouseRules(EncoderContract):
    """Grids that round up, pyramids with names, weights that say what they are, message texts."""

    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_maps_are_what_the_specs_promise(self, encoder: Encoder, size: tuple[int, int]) -> None:
        super().test_maps_are_what_the_specs_promise(encoder, size)
        maps = encoder(images(2, size), list(encoder.specs)).maps
        for name, spec in encoder.specs.items():
            strided = tuple(math.ceil(v / spec.stride_px) for v in encoder.resized_px(size))
            assert maps[name].shape[2:] == encoder.grid(name, size)
            assert encoder.grid(name, size) == strided or (spec.layout, maps[name].shape[2]) == ("BNC", 1)

    def test_a_pyramid_has_a_name(self, encoder: Encoder) -> None:
        strides = {s.stride_px for s in encoder.specs.values()}
        assert encoder.groups or len(strides) == 1

    def test_it_has_parameters(self, encoder: Encoder) -> None:
        assert list(encoder.module.parameters())

    def test_a_trunk_runs_no_further_than_its_split_point(self, encoder: Encoder) -> None:
        """The earlier the cut, the less is computed before it: what a split-point study is about."""
        stages = encoder.groups.get("trunk", ())
        spent = [macs(lambda s=s: encoder(images(1, (96, 96)), [s])) for s in stages]  # type: ignore[misc]
        assert spent == sorted(set(spent))

    def test_the_default_split_is_a_split_point(self, encoder: Encoder) -> None:
        assert list(encoder(images(1, (96, 96)), [encoder.default_split_point]).maps) == [encoder.default_split_point]

    def test_an_unknown_split_is_refused(self, encoder: Encoder) -> None:
        typo = encoder.default_split_point + "x"
        with pytest.raises(FcbenchError, match=f"Did you mean '{encoder.default_split_point}'"):
            encoder(images(1, (96, 96)), [typo])

    def test_the_same_weights_have_the_same_name(self, encoder: Encoder) -> None:
        """Random weights are those of the seed, and say so."""
        state = torch.random.get_rng_state()
        a = self.build("random")
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(1234)
        b = self.build("random")
        assert a.weights == b.weights == encoder.weights
        assert a.weights.origin == "random(seed=0)"
        assert len(a.weights.sha256) == 64
        assert state_sha256(a.module) == state_sha256(b.module) == state_sha256(encoder.module)

    def test_weights_of_another_architecture_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pt"
        torch.save(torch.nn.Linear(3, 5).state_dict(), path)
        with pytest.raises(FcbenchError, match="missing") as caught:
            self.build(str(path))
        assert "\n" not in str(caught.value)

    def test_missing_weights_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(FcbenchError, match="nowhere.pt not found"):
            self.build(str(tmp_path / "nowhere.pt"))


_ELSEWHERE = {"extracted", "hf"}  # reads no images: tests/unit/test_extracted.py; needs files: test_hf_encoders.py
for _name in sorted(set(registry.names("encoder")) - _ELSEWHERE):
    for _typed in [f"{_name}:{v}" for v in VARIANTS.get(_name, ())] or [_name]:
        _class = f"Test_{_typed.replace(':', '_').replace('@', '_')}"
        globals()[_class] = type(_class, (HouseRules,), {"plugin": _typed})
