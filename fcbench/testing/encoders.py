"""Contract of encoders. Three lines test one, built-in, installed or a file::

from fcbench.testing.encoders import EncoderContract
class TestMine(EncoderContract):
    plugin = "my_encoder.py"
"""

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fcbench.core import registry
from fcbench.core.features import Encoder
from fcbench.encoders.shared.weights import state_sha256

SIZES = ((96, 96), (97, 130), (64, 161))


def images(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Noise, uint8 [n, 3, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=generator)


class EncoderContract:
    """Requirements for every encoder. Subclass it in a test module and set `plugin`."""

    plugin: ClassVar[str | Path]  # ``NAME[:VARIANT]`` of an encoder, or path of its file
    weights: ClassVar[str | None] = "random"  # weights to test with: None for its own, ``random``, or a file

    @classmethod
    def build(cls, weights: str | None) -> Encoder:
        """The encoder on the CPU."""
        return registry.build_encoder(str(cls.plugin), weights, torch.device("cpu"))

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        return cls.build(cls.weights)

    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_maps_are_what_the_specs_promise(self, encoder: Encoder, size: tuple[int, int]) -> None:
        maps = encoder(images(2, size), list(encoder.specs)).maps
        assert list(maps) == list(encoder.specs)
        for name, spec in encoder.specs.items():
            assert spec.name == name
            assert maps[name].shape[:2] == (2, spec.channels), name
            for n, most, side in zip(maps[name].shape[2:], encoder.grid(name, size), encoder.resized_px(size)):
                assert n == most or (spec.layout == "BCHW" and n == side // spec.stride_px), name
            assert maps[name].dtype == torch.float32 and maps[name].is_contiguous(), name
            assert torch.isfinite(maps[name]).all() and maps[name].std() > 0, name

    def test_split_points_go_from_fine_to_coarse(self, encoder: Encoder) -> None:
        strides = [s.stride_px for s in encoder.specs.values() if s.layout == "BCHW"]
        assert strides == sorted(strides)
        assert encoder.default_split_point in {**encoder.specs, **encoder.groups}

    def test_only_what_is_asked_for_comes_back(self, encoder: Encoder) -> None:
        name = next(iter(encoder.specs))
        alone = encoder(images(1, (96, 96)), [name])
        among = encoder(images(1, (96, 96)), list(encoder.specs))
        assert list(alone.maps) == [name]
        torch.testing.assert_close(alone.maps[name], among.maps[name])

    def test_it_is_frozen(self, encoder: Encoder) -> None:
        """Parameters and buffers are the same before and after everything that a run does with an encoder."""
        before = state_sha256(encoder.module)
        for size in SIZES:
            for x in encoder(images(2, size), list(encoder.specs)).maps.values():
                assert not x.requires_grad
                _train_on(x)
        assert state_sha256(encoder.module) == before
        assert not encoder.module.training
        parameters = list(encoder.module.parameters())
        assert not any(p.requires_grad for p in parameters)
        assert all(p.grad is None for p in parameters)

    def test_groups_are_split_points_fine_to_coarse(self, encoder: Encoder) -> None:
        order = list(encoder.specs)
        for name, members in encoder.groups.items():
            assert name not in encoder.specs
            assert len(members) > 1 and set(members) <= set(order)
            assert sorted(members, key=order.index) == list(members)
            assert tuple(encoder(images(1, (96, 96)), members).maps) == members

    def test_it_is_deterministic(self, encoder: Encoder) -> None:
        names = list(encoder.specs)
        a, b = (encoder(images(2, (96, 96)), names).maps for _ in range(2))
        assert all(torch.equal(a[name], b[name]) for name in names)

    def test_features_do_not_depend_on_the_batch(self, encoder: Encoder) -> None:
        batch, name = images(3, (96, 96)), list(encoder.specs)[-1]
        together = encoder(batch, [name]).maps[name]
        alone = torch.cat([encoder(batch[i : i + 1], [name]).maps[name] for i in range(3)])
        assert (together - alone).abs().max() <= 1e-4 * together.abs().max()
        assert not torch.equal(together[0], together[1]), "features must depend on the image"

    def test_an_unknown_split_is_refused(self, encoder: Encoder) -> None:
        with pytest.raises(Exception):  # noqa: B017, PT011
            encoder(images(1, (96, 96)), ["no_such_split_point"])

    def test_the_same_weights_have_the_same_name(self, encoder: Encoder) -> None:
        again = self.build(self.weights)
        assert again.weights == encoder.weights
        assert len(again.weights.sha256) == 64
        assert state_sha256(again.module) == state_sha256(encoder.module)


def _train_on(x: torch.Tensor) -> None:
    """One step of a neck on features [B, C, h, w], in training mode, with weight decay."""
    neck = torch.nn.Conv2d(x.shape[1], 2, 1)
    start = state_sha256(neck)
    optimizer = torch.optim.AdamW(neck.parameters(), lr=0.1)
    neck(x).square().mean().backward()
    optimizer.step()
    assert state_sha256(neck) != start, "the step must have changed something"
