"""The variable-rate codec: one set of weights, any operating point."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.codecs import OperatingPoint
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.measure.points import lmbdas_of
from fcbench.measure.suite import Suite
from fcbench.training.codec import CodecRecipe
from fcbench.training.options import Budget
from fcbench.transmit import checkpoint

NAME = "gained_hyperprior"
SPECS = (FeatureSpec("stage3", 6, 16),)
LMBDAS = (0.1, 0.4, 2.0, 10.0, 40.0)


def data(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 6, 14, 14, generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 3, 1) * 3


def build(lmbda: float) -> Any:
    torch.manual_seed(0)
    x = data(16, 0)
    flat = x.transpose(0, 1).flatten(1)
    stats = FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))
    codec = registry.get("codec", NAME).build(SPECS, {"stage3": stats}, {"lmbda": lmbda})
    codec.prepare([x])
    return codec


def test_plugin_says_that_it_is_variable() -> None:
    assert registry.get("codec", NAME).variable is True
    assert registry.get("codec", "hyperprior").variable is False


def test_one_codec_serves_the_whole_curve() -> None:
    codec, x = build(1.0), Features({"stage3": data(1, 5)})
    sizes, errors = [], []
    for lmbda in LMBDAS:
        codec.at(lmbda)
        codec.freeze()
        stream = codec.encode(x)
        decoded = codec.decode(stream.payload, x.shapes)
        assert decoded.check == stream.check
        with torch.no_grad():
            estimated = float(codec(x.maps)[1]) / 8
        assert len(stream.payload) <= 1.03 * estimated + 16
        sizes.append(len(stream.payload))
        error = decoded.features.maps["stage3"] - x.maps["stage3"]
        errors.append(float(error.square().mean()))
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    assert errors == sorted(errors, reverse=True)


def test_a_moved_codec_is_the_one_built_there() -> None:
    x = Features({"stage3": data(1, 5)})
    moved, built = build(40.0), build(0.4)
    moved.at(0.4)
    for codec in (moved, built):
        codec.freeze()
    assert moved.encode(x) == built.encode(x)


def test_a_checkpoint_holds_its_point(tmp_path: Path) -> None:
    x, codec = Features({"stage3": data(1, 5)}), build(40.0)
    codec.at(0.4)
    codec.freeze()
    point = OperatingPoint(NAME, {"lmbda": 0.4})
    checkpoint.save(tmp_path / "c.safetensors", codec, point, SPECS, checkpoint.Source("hiera_nano", "00" * 32))
    loaded = checkpoint.load(tmp_path / "c.safetensors").codec
    assert loaded.encode(x) == codec.encode(x)


def test_points_of_one_training_share_it_and_those_of_another_do_not(tmp_path: Path) -> None:
    """Trained is what the lowest and the highest lmbda determine: a further one between them changes nothing."""

    def files(*lmbdas: float) -> tuple[Path, Path]:
        suite = Suite(codecs=(NAME,), params={NAME: tuple({"lmbda": v} for v in (0.5, *lmbdas))})
        source: Any = SimpleNamespace(train=SimpleNamespace(features=SimpleNamespace(contents={})))
        point = OperatingPoint(NAME, {"lmbda": 0.5})
        recipe = CodecRecipe(source, point, Budget(), seed=0, lmbdas=lmbdas_of(suite, NAME))
        return recipe.path(Cache(tmp_path)), recipe.trained_path(Cache(tmp_path))

    assert files(0.7) == files()
    assert not set(files(100.0)) & set(files())


def test_every_step_teaches_the_whole_curve() -> None:
    codec = build(0.4)
    _, bits = codec.train()({"stage3": data(4, 1)})
    bits.sum().backward()
    for name, parameter in codec.named_parameters():
        if "gain_y" in name or "gain_z" in name:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.abs().sum() > 0), name
