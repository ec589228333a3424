"""``sam2``: the features of the official predictor, of timm's port, and the official checkpoint files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES, build_sam2
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch import Tensor

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.encoders.sam2 import FPN, TRUNK, VARIANTS
from fcbench.encoders.shared.weights import file_sha256

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SIZE_PX = 256  # of the predictor's input: the official 1024 is in a slow test
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass
class Official:
    """The whole official model with random weights, its checkpoint file, and our encoder from that file."""

    model: SAM2Base
    path: Path
    encoder: Encoder


def build(name: str, weights: Path | str | None) -> Encoder:
    kind, _, variant = name.partition(":")
    plugin = registry.get("encoder", kind)
    return plugin.build(variant, None if weights is None else str(weights), torch.device("cpu"))


def images(height: int, width: int, n: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to float tolerance, relative to the map's largest value."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    """SAM 2.1 tiny for `SIZE_PX` images, saved as Meta saves it: a dict with the state under ``model``."""
    torch.manual_seed(1)
    model = build_sam2(CONFIG, device="cpu", hydra_overrides_extra=[f"++model.image_size={SIZE_PX}"])
    trunk = model.image_encoder.trunk
    for embedding in (trunk.pos_embed, trunk.pos_embed_window):  # zero when new
        torch.nn.init.normal_(embedding)
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": model.state_dict()}, path)
    return Official(model, path, build("sam2:tiny", path))


def check_against_predictor(official: Official, size_px: int) -> None:
    """Our maps, taken the rest of the predictor's way, are what `set_image` keeps."""
    image = images(size_px, size_px)
    predictor = SAM2ImagePredictor(official.model)
    predictor._bb_feat_sizes = [(size_px // s,) * 2 for s in (4, 8, 16)]
    predictor.set_image(image[0].permute(1, 2, 0).numpy())
    maps = official.encoder(image, [*FPN, "vision_features"]).maps
    decoder = official.model.sam_mask_decoder
    kept = predictor._features
    with torch.no_grad():
        close(decoder.conv_s0(maps["fpn1"]), kept["high_res_feats"][0])
        close(decoder.conv_s1(maps["fpn2"]), kept["high_res_feats"][1])
    no_memory = official.model.no_mem_embed.detach().view(1, -1, 1, 1)
    close(maps["fpn3"] + no_memory, kept["image_embed"])
    close(maps["vision_features"] + no_memory, kept["image_embed"])


def test_features_are_those_of_the_official_predictor(official: Official) -> None:
    check_against_predictor(official, SIZE_PX)


@pytest.mark.slow
def test_features_are_those_of_the_official_predictor_at_its_own_size(
    official: Official, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official.model, "image_size", 1024)
    check_against_predictor(official, 1024)


@pytest.mark.parametrize("size", [(96, 128), (97, 130)], ids=str)
def test_maps_are_those_of_the_official_encoder(official: Official, size: tuple[int, int]) -> None:
    image = images(*size, n=2)
    x = (image / 255 - MEAN) / STD
    padded = torch.nn.functional.pad(x, (0, -size[1] % 32, 0, -size[0] % 32), mode="replicate")
    with torch.no_grad():
        stages = official.model.image_encoder.trunk(padded)
        levels = official.model.image_encoder(padded)["backbone_fpn"]
    maps = official.encoder(image, list(official.encoder.specs)).maps
    for name, expected in zip((*TRUNK, *FPN), (*stages, *levels)):
        h, w = maps[name].shape[-2:]
        stride = official.encoder.specs[name].stride_px
        assert (h, w) == (-(-size[0] // stride), -(-size[1] // stride))
        close(maps[name], expected[..., :h, :w])


def test_timms_port_gives_the_same_trunk_from_the_same_file(official: Official) -> None:
    timm = build("timm:sam2_hiera_tiny", official.path)
    assert timm.weights == official.encoder.weights
    for size in ((160, 224), (97, 130)):
        image = images(*size)
        ours = official.encoder(image, TRUNK).maps
        theirs = timm(image, TRUNK).maps
        for name in TRUNK:
            close(theirs[name], ours[name])


def test_timm_refuses_the_checkpoint_of_another_size(official: Official) -> None:
    with pytest.raises(FcbenchError, match="tiny.pt does not fit timm:sam2_hiera_smal"):
        build("timm:sam2_hiera_small", official.path)


def test_only_the_image_encoder_is_built(official: Official) -> None:
    whole = official.model.state_dict()
    inside = {k for k in whole if k.startswith("image_encoder.")}
    assert len(inside) < len(whole)
    state = official.encoder.module.state_dict()
    assert {f"image_encoder.{k}" for k in state} == inside
    assert all(torch.equal(t, whole[f"image_encoder.{k}"]) for k, t in state.items())


def test_the_row_says_which_file(official: Official) -> None:
    assert official.encoder.name == "sam2:tiny"
    assert official.encoder.weights.origin == "file:sam2.1_hiera_tiny.pt"
    assert official.encoder.weights.sha256 == file_sha256(official.path)


def test_split_points_groups_and_channels(official: Official) -> None:
    specs = official.encoder.specs
    assert [specs[n].channels for n in TRUNK] == [96, 192, 384, 768]
    assert [specs[n].channels for n in FPN] == [256] * 3
    assert official.encoder.groups == {"fpn": FPN, "trunk": TRUNK}
    assert specs[official.encoder.default_split_point].stride_px == 16


def test_a_checkpoint_of_the_other_version_is_refused(official: Official, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="SAM 2.1's.*use --encoder sam2:tiny$"):
        build("sam2:tiny-2.0", official.path)
    state = official.model.state_dict()
    older = {k: torch.zeros(1).expand(t.shape) for k, t in state.items() if k != "no_obj_embed_spatial"}
    torch.save({"model": older}, tmp_path / "sam2_hiera_tiny.pt")
    with pytest.raises(FcbenchError, match="SAM 2.0's.*use --encoder sam2:tiny-2.0$"):
        build("sam2", tmp_path / "sam2_hiera_tiny.pt")
    encoder = build("sam2:tiny-2.0", tmp_path / "sam2_hiera_tiny.pt")
    assert encoder.weights.origin == "file:sam2_hiera_tiny.pt"


def test_a_checkpoint_of_another_size_is_refused(official: Official) -> None:
    with pytest.raises(FcbenchError, match="does not fit sam2:small: .*missing"):
        build("sam2:small", official.path)


def test_every_variant_is_an_official_model() -> None:
    assert set(VARIANTS.values()) == set(HF_MODEL_ID_TO_FILENAMES)
    assert VARIANTS["base_plus"] == VARIANTS["base_plus-2.1"]
    assert VARIANTS["base_plus"] == "facebook/sam2.1-hiera-base-plus"
    assert VARIANTS["tiny-2.0"] == "facebook/sam2-hiera-tiny"


def test_an_unknown_variant_gets_the_nearest() -> None:
    with pytest.raises(FcbenchError, match="Did you mean 'base_plus'"):
        build("sam2:base_pluss", "random")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["small", "base_plus", "large", "large-2.0"])
def test_every_size_runs(variant: str) -> None:
    encoder = build(f"sam2:{variant}", "random")
    maps = encoder(images(97, 130), list(encoder.specs)).maps
    for name, spec in encoder.specs.items():
        assert maps[name].shape[1] == spec.channels
        assert torch.isfinite(maps[name]).all()
