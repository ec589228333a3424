"""A stream of every codec with its checkpoint, as an earlier version wrote them: every later one reads them.

``streams/NAME.safetensors.xz`` is the checkpoint, ``NAME.fcb`` holds three samples, ``NAME.features.safetensors`` what
they decoded to. ``pytest tests/golden --regenerate-golden`` makes those of a new codec, and leaves the others as they
are: a trained checkpoint cannot be made twice.
"""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec
from fcbench.testing.codecs import make, middle, write
from fcbench.testing.maps import batches, features, statistics
from fcbench.transmit import checkpoint
from fcbench.transmit.container import ContainerReader, Header

STREAMS = Path(__file__).parent / "streams"
RECORDED_VVC = Path(__file__).parents[1] / "unit" / "vvc_mosaic_qp34.266"
TOLERANCE = 1e-4  # Between features of two machines, in deviations of the map; decoded integers are equal
EXACT = {"raw", "uniform", "pq"}  # Tables alone: features are equal to the bit
NAMES = tuple(registry.names("codec"))  # before other tests add examples
KINDS = ("safetensors.xz", "fcb", "features.safetensors")

TWO = (FeatureSpec("fine", 3, 8), FeatureSpec("coarse", 4, 16))
PICTURE = (FeatureSpec("fine", 1, 8),)


def _codec(name: str) -> tuple[Any, tuple[FeatureSpec, ...], list[Features]]:
    if name != "vvc":
        return (
            make(name, TWO, middle(name)),
            TWO,
            [features(TWO, (5, 7)), features(TWO, (5, 7), 3), features(TWO, (1, 1))],
        )
    maps = batches(PICTURE, 2, (128, 192), seed=1)  # its encoder is a program; there is a recorded stream of this size
    codec: Any = registry.get("codec", name).build(PICTURE, {"fine": statistics(maps[0])}, middle(name))
    codec._coder = replace(codec._coder, encode=lambda *args: RECORDED_VVC.read_bytes())
    codec.prepare(maps)
    return codec, PICTURE, [features(PICTURE, (128, 192))]


def decoded(folder: Path) -> dict[str, torch.Tensor]:
    """Features of ``a.fcb`` by number of the record and map, each record verified."""
    loaded, reader = checkpoint.load(folder / "c.safetensors"), ContainerReader(folder / "a.fcb")
    reader.verify_checkpoint(loaded.sha256)
    reader.verify_header(Header(loaded.point.codec, loaded.sha256, loaded.specs), folder / "c.safetensors")
    found: dict[str, torch.Tensor] = {}
    for number, record in enumerate(reader):
        sample = loaded.codec.decode(record.payload, record.shapes)
        record.verify(sample)
        found |= {f"{number}.{name}": x for name, x in sample.features.maps.items()}
    return found


def _make(name: str, folder: Path) -> None:
    codec, specs, samples = _codec(name)
    write(folder, name, codec, specs, samples)
    packed = lzma.compress((folder / "c.safetensors").read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    contents = packed, (folder / "a.fcb").read_bytes(), safetensors.save(decoded(folder))
    for kind, content in zip(KINDS, contents, strict=True):
        (STREAMS / f"{name}.{kind}").write_bytes(content)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_stream_is_read(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    packed, stream, expected = (STREAMS / f"{name}.{kind}" for kind in KINDS)
    if request.config.getoption("--regenerate-golden", default=False) and not packed.exists():
        _make(name, tmp_path)
    (tmp_path / "c.safetensors").write_bytes(lzma.decompress(packed.read_bytes()))
    (tmp_path / "a.fcb").write_bytes(stream.read_bytes())
    try:
        found, wanted = decoded(tmp_path), safetensors.load(expected.read_bytes())
    except FcbenchError as error:
        if name == "sz3" and "another format" in str(error):
            pytest.skip(str(error))  # imagecodecs for Python 3.10 has SZ3 3.1
        raise
    assert set(found) == set(wanted) and len(found) >= 1
    for key, value in wanted.items():
        scale = 0.0 if name in EXACT else TOLERANCE * max(1.0, float(value.abs().max()))
        assert found[key].shape == value.shape and float((found[key] - value).abs().max()) <= scale, key


def test_every_golden_stream_is_of_a_codec() -> None:
    assert {p.name for p in STREAMS.iterdir()} == {f"{name}.{k}" for name in NAMES for k in KINDS}
