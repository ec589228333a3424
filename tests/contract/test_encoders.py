"""What every encoder keeps: the promises of its specs, frozen weights, the same features whatever the batch."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.encoders.shared.weights import state_sha256
from fcbench.measure.complexity import macs

TIMM = ("test_resnet", "test_vit", "test_convnext", "test_mambaout", "tf_efficientnet_lite0")
SIZES = ((96, 96), (97, 130), (64, 161))


def _cases() -> list[str]:
    """Every registered encoder; one that needs a variant, with several."""
    cases: list[str] = []
    for name in registry.names("encoder"):
        tries = [f"{name}:{v}" for v in TIMM] if name == "timm" else [name]
        cases += tries
    return cases


def _build(case: str, weights: str | None = "random") -> Encoder:
    name, _, variant = case.partition(":")
    return registry.get("encoder", name).build(variant, weights, torch.device("cpu"))


@pytest.fixture(scope="module", params=_cases())
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return _build(request.param)


def _images(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_maps_are_what_the_specs_promise(encoder: Encoder, size: tuple[int, int]) -> None:
    maps = encoder(_images(2, size), list(encoder.specs)).maps
    assert list(maps) == list(encoder.specs)
    for name, spec in encoder.specs.items():
        assert spec.name == name
        h, w = (math.ceil(v / spec.stride_px) for v in size)
        assert maps[name].shape == (2, spec.channels, h, w)
        assert maps[name].dtype == torch.float32
        assert maps[name].is_contiguous()
        assert torch.isfinite(maps[name]).all()
        assert maps[name].std() > 0


def test_split_points_go_from_fine_to_coarse(encoder: Encoder) -> None:
    strides = [s.stride_px for s in encoder.specs.values()]
    assert strides == sorted(strides)
    assert encoder.default_split in {**encoder.specs, **encoder.groups}


def test_only_what_is_asked_for_comes_back(encoder: Encoder) -> None:
    some = encoder.default_split
    alone = encoder(_images(1, (96, 96)), [some])
    among = encoder(_images(1, (96, 96)), list(encoder.specs))
    assert list(alone.maps) == [some]
    torch.testing.assert_close(alone.maps[some], among.maps[some])


def test_it_is_frozen(encoder: Encoder) -> None:
    """Parameters and buffers, before and after everything that a run does with an encoder."""
    before = state_sha256(encoder.module)
    n_used = 0
    for size in SIZES:
        maps = encoder(_images(2, size), list(encoder.specs)).maps
        assert not any(m.requires_grad for m in maps.values())
        for x in maps.values():
            _train_on(x)
            n_used += 1
    assert n_used == len(SIZES) * len(encoder.specs)
    assert state_sha256(encoder.module) == before
    assert not encoder.module.training
    parameters = list(encoder.module.parameters())
    assert parameters and not any(p.requires_grad for p in parameters)
    assert all(p.grad is None for p in parameters)


def _train_on(x: torch.Tensor) -> None:
    """One step of a neck on features [B, C, h, w], in training mode, with weight decay."""
    neck = torch.nn.Conv2d(x.shape[1], 2, 1)
    start = state_sha256(neck)
    optimizer = torch.optim.AdamW(neck.parameters(), lr=0.1)
    neck(x).square().mean().backward()
    optimizer.step()
    assert state_sha256(neck) != start, "the step must have changed something"


def test_groups_are_split_points_fine_to_coarse(encoder: Encoder) -> None:
    order = list(encoder.specs)
    for name, members in encoder.groups.items():
        assert name not in encoder.specs
        assert len(members) > 1 and set(members) <= set(order)
        assert sorted(members, key=order.index) == list(members)
        maps = encoder(_images(1, (96, 96)), members).maps
        assert tuple(maps) == members
    strides = {s.stride_px for s in encoder.specs.values()}
    assert encoder.groups or len(strides) == 1, "a pyramid has a name"


def test_a_trunk_runs_no_further_than_its_split_point(encoder: Encoder) -> None:
    """The earlier the cut, the less is computed before it: what a split-point study is about."""
    stages = encoder.groups.get("trunk", ())
    spent = [macs(partial(encoder, _images(1, (96, 96)), [s])) for s in stages]
    assert spent == sorted(set(spent))


def test_it_is_deterministic(encoder: Encoder) -> None:
    images = _images(2, (96, 96))
    a, b = (encoder(images, [encoder.default_split]).maps for _ in range(2))
    assert torch.equal(a[encoder.default_split], b[encoder.default_split])


def test_features_do_not_depend_on_the_batch(encoder: Encoder) -> None:
    images, split = _images(3, (96, 96)), encoder.default_split
    together = encoder(images, [split]).maps[split]
    alone = torch.cat([encoder(images[i : i + 1], [split]).maps[split] for i in range(3)])
    scale = together.abs().max()
    assert (together - alone).abs().max() <= 1e-4 * scale
    assert not torch.equal(together[0], together[1]), "features must depend on the image"


def test_an_unknown_split_is_an_error_with_the_nearest(encoder: Encoder) -> None:
    typo = encoder.default_split + "x"
    with pytest.raises(FcbenchError, match=f"Did you mean '{encoder.default_split}'"):
        encoder(_images(1, (96, 96)), [typo])


@pytest.mark.parametrize("case", _cases())
def test_random_weights_are_those_of_the_seed_and_say_so(case: str) -> None:
    state = torch.random.get_rng_state()
    a = _build(case)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1234)
    b = _build(case)
    assert a.weights == b.weights
    assert a.weights.origin == "random(seed=0)"
    assert len(a.weights.sha256) == 64
    assert state_sha256(a.module) == state_sha256(b.module)


@pytest.mark.parametrize("case", _cases())
def test_weights_of_another_architecture_are_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(3, 5).state_dict(), path)
    with pytest.raises(FcbenchError, match="missing") as caught:
        _build(case, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", _cases())
def test_missing_weights_are_named(case: str, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="nowhere.pt not found"):
        _build(case, str(tmp_path / "nowhere.pt"))
