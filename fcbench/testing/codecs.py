"""Contract of codecs. Three lines test one, built-in, installed or a file::

from fcbench.testing.codecs import CodecContract

class TestMine(CodecContract):
    plugin = "my_codec.py"
"""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.codecs import Bitstream, EstimatingCodec, Objective, OperatingPoint, with_check
from fcbench.core.features import Features, FeatureSpec
from fcbench.testing.contract import Contract
from fcbench.testing.maps import GRIDS, ONE, TWO, batches, correlated, features, statistics
from fcbench.transmit import checkpoint
from fcbench.transmit.container import ContainerReader, ContainerWriter, Header

SOURCE = checkpoint.Source("hiera_nano", "00" * 32)
OBJECTIVES: tuple[Objective, ...] = ("mse", "levels", "task", "both")
SPARE_BYTES = 64  # A payload of few symbols may exceed its estimate by this much


def environment() -> dict[str, str]:
    """For another process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


DECODE = """
import hashlib, sys
from pathlib import Path
import torch
from fcbench.transmit import checkpoint
from fcbench.transmit.container import ContainerReader
torch.set_num_threads(int(sys.argv[1]))
for folder in map(Path, map(str.strip, sys.stdin)):
    loaded, digest = checkpoint.load(folder / "c.safetensors"), hashlib.sha256()
    for record in ContainerReader(folder / "a.fcb"):
        decoded = loaded.codec.decode(record.payload, record.shapes)
        record.verify(decoded)
        for x in decoded.features.maps.values():
            digest.update(x.numpy().tobytes())
    print(digest.hexdigest(), flush=True)
"""


# ------------------------------------------------------------------------------------------------- making
def middle(name: str) -> dict[str, Any]:
    """Knobs in the middle of a codec's default sweep."""
    sweep = registry.get("codec", name).sweep("mse")
    return dict(sweep[len(sweep) // 2])


def loss_of(codec: Any, maps: Mapping[str, Tensor], lmbda: float) -> Tensor:
    """Bits per scalar + lmbda * squared error in units of the variance."""
    decoded, bits = codec(maps)
    errors = [((decoded[k] - x) / statistics(x).std[:, None, None]).square().mean() for k, x in maps.items()]
    total: Tensor = bits.sum() / sum(x.numel() for x in maps.values()) + lmbda * torch.stack(errors).mean()
    return total


def train(codec: Any, maps: Mapping[str, Tensor], lmbda: float, n_steps: int) -> None:
    """A few steps of Adam."""
    codec.train()
    optimizer = torch.optim.Adam(codec.parameters(), 1e-3)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss_of(codec, maps, lmbda).backward()
        optimizer.step()


def make(name: str, specs: tuple[FeatureSpec, ...], knobs: Mapping[str, Any], n_steps: int = 3) -> Any:
    """A frozen codec."""
    torch.manual_seed(0)
    drawn = batches(specs, 8, (16, 16), seed=1)
    maps = {s.name: x for s, x in zip(specs, drawn)}
    plugin = registry.get("codec", name)
    codec: Any = plugin.build(specs, {k: statistics(x) for k, x in maps.items()}, knobs)
    codec.prepare(drawn)
    if plugin.trained:
        train(codec, maps, float(knobs["lmbda"]), n_steps)
    codec.freeze()
    return codec


def coded(codec: Any, x: Features) -> Bitstream:
    """One sample as written to a file."""
    return with_check(codec.encode(x), codec, x.shapes)


def flip(data: bytes, bit: int) -> bytes:
    """The bytes with one bit changed."""
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def damages(payload: bytes) -> list[bytes]:
    """Some 200 damaged payloads: cut, flipped, random, too long."""
    rng = random.Random(0)
    cuts = [payload[:n] for n in range(0, len(payload), max(1, len(payload) // 40))]
    flips = [flip(payload, rng.randrange(8 * len(payload))) for _ in range(150)]
    return [*cuts, *flips, rng.randbytes(len(payload)), payload + b"\xff\xff\xff\xff"]


def write(folder: Path, name: str, codec: Any, specs: tuple[FeatureSpec, ...], samples: Sequence[Features]) -> None:
    """``c.safetensors`` and ``a.fcb`` of a frozen codec."""
    point = OperatingPoint(name, middle(name))
    sha256 = checkpoint.save(folder / "c.safetensors", codec, point, specs, SOURCE)
    with ContainerWriter(folder / "a.fcb", Header(name, sha256, specs)) as writer:
        for x in samples:
            writer.append(coded(codec, x), x.shapes)


# ------------------------------------------------------------------------------------------------ contract
class CodecContract(Contract):
    """Requirements for every codec. Subclass it in a test module and set `plugin`."""

    kind = "codec"
    constant_error: ClassVar[float] = float("inf")  # maximum error of a channel that does not vary

    @pytest.fixture(scope="class")
    @classmethod
    def codec(cls, name: str) -> Any:
        """A codec of one map, `ONE`."""
        return make(name, ONE, middle(name))

    @pytest.fixture(scope="class")
    @classmethod
    def codec_two(cls, name: str) -> Any:
        """A codec of two maps, `TWO`."""
        return make(name, TWO, middle(name))

    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("n_maps", [1, 2])
    def test_a_payload_decodes_to_its_maps(
        self, codec: Any, codec_two: Any, n_maps: int, grid: tuple[int, int]
    ) -> None:
        specs, chosen = (ONE, codec) if n_maps == 1 else (TWO, codec_two)
        x = features(specs, grid)
        stream = coded(chosen, x)
        assert stream.payload == b"".join(stream.parts.values())
        decoded = chosen.decode(stream.payload, x.shapes)
        assert (decoded.n_symbols, decoded.check) == (stream.n_symbols, stream.check)
        assert not decoded.parts or decoded.parts == stream.parts
        assert list(decoded.features.maps) == list(x.maps), "maps come back in the order of the specs"
        for key, value in decoded.features.maps.items():
            assert value.shape == x.maps[key].shape and value.dtype == torch.float32, key
            assert bool(torch.isfinite(value).all()), key

    @pytest.mark.parametrize("grid", GRIDS)
    def test_estimated_bits_are_those_of_the_payload(self, codec_two: Any, grid: tuple[int, int]) -> None:
        if not isinstance(codec_two, EstimatingCodec):
            pytest.skip("codes and decodes only")
        x = features(TWO, grid)
        with torch.no_grad():
            bits = codec_two.estimate_bits(x.maps)
        assert bits.shape == (1,)
        assert len(coded(codec_two, x).payload) <= 1.1 * float(bits) / 8 + SPARE_BYTES

    def test_forward_gives_what_is_decoded(self, name: str, codec_two: Any) -> None:
        if not registry.get("codec", name).trained:
            pytest.skip("is not trained")
        x = features(TWO, (23, 30))
        decoded = codec_two.decode(codec_two.encode(x).payload, x.shapes).features.maps
        with torch.no_grad():
            expected, bits = codec_two(x.maps)
        assert bits.shape == (1,) and list(expected) == list(decoded)
        for key, value in expected.items():
            assert float((decoded[key] - value).square().mean() / value.var()) < 1e-3, key

    def test_coding_needs_no_order_of_maps(self, codec_two: Any) -> None:
        x = features(TWO, (5, 7))
        swapped = Features(dict(reversed(x.maps.items())))
        assert codec_two.encode(swapped) == codec_two.encode(x)

    def test_a_fresh_object_from_checkpoint_and_file_alone(self, name: str, codec_two: Any, tmp_path: Path) -> None:
        samples = [features(TWO, grid) for grid in GRIDS]
        write(tmp_path, name, codec_two, TWO, samples)
        loaded = checkpoint.load(tmp_path / "c.safetensors")
        assert (loaded.point, loaded.specs) == (OperatingPoint(name, middle(name)), TWO)
        for record, x in zip(ContainerReader(tmp_path / "a.fcb"), samples, strict=True):
            decoded = loaded.codec.decode(record.payload, record.shapes)
            record.verify(decoded)
            here = codec_two.decode(record.payload, record.shapes)
            for key in x.maps:
                assert torch.equal(decoded.features.maps[key], here.features.maps[key])
            assert loaded.codec.encode(x).payload == record.payload

    def test_a_fresh_process_decodes_the_same(self, name: str, codec: Any, tmp_path: Path) -> None:
        x = features(ONE, (23, 30))
        write(tmp_path, name, codec, ONE, [x])
        decoded = codec.decode(coded(codec, x).payload, x.shapes).features.maps["stage3"]
        assert self.decoded_elsewhere(tmp_path) == hashlib.sha256(decoded.numpy().tobytes()).hexdigest()

    def decoded_elsewhere(self, folder: Path) -> str:
        """SHA-256 of the decoded features of a folder of `write`, by a fresh process."""
        command, where = [sys.executable, "-c", DECODE, str(torch.get_num_threads())], f"{folder}\n"
        done = subprocess.run(command, input=where, capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_not_a_number_is_refused(self, codec: Any, bad: float) -> None:
        x = features(ONE, (5, 7))
        x.maps["stage3"][0, 3, 2, 1] = bad
        with pytest.raises(Exception):  # noqa: B017, PT011
            codec.encode(x)

    def test_wrong_features_are_refused(self, codec: Any) -> None:
        good = features(ONE, (5, 7)).maps["stage3"]
        for maps in ({}, {"other": good}, {"stage3": good[:, :5]}):
            with pytest.raises(Exception):  # noqa: B017, PT011
                codec.encode(Features(maps))

    def test_damaged_payloads_never_pass(self, codec: Any) -> None:
        """Each gives an error, a check other than the stream's, or exactly the same features (padding bits)."""
        x = features(ONE, (5, 7))
        stream = coded(codec, x)
        good = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
        for damaged in damages(stream.payload):
            try:
                decoded = codec.decode(damaged, x.shapes)
            except Exception:  # noqa: S112
                continue
            assert decoded.check != stream.check or torch.equal(decoded.features.maps["stage3"], good)

    def test_unknown_knobs_are_refused(self, name: str) -> None:
        stats = {"stage3": statistics(correlated(4, 12, (5, 7), 0))}
        with pytest.raises(Exception):  # noqa: B017, PT011
            registry.get("codec", name).build(ONE, stats, {**middle(name), "surprise": 1})

    def test_sweeps_have_distinct_points_that_build(self, name: str) -> None:
        plugin = registry.get("codec", name)
        stats = {"stage3": statistics(correlated(4, 12, (5, 7), 0))}
        for objective in OBJECTIVES:
            sweep = plugin.sweep(objective)
            assert sweep, objective
            assert len({OperatingPoint(name, knobs).label for knobs in sweep}) == len(sweep)
            for knobs in sweep:
                plugin.build(ONE, stats, knobs)
                assert not plugin.trained or "lmbda" in knobs

    def test_a_sweep_goes_from_low_to_high_rate(self, name: str) -> None:
        plugin = registry.get("codec", name)
        if plugin.trained:
            pytest.skip("reports it only in training")
        x = features(ONE, (23, 30))
        sizes = [len(make(name, ONE, knobs).encode(x).payload) for knobs in plugin.sweep("mse")]
        assert sizes == sorted(sizes)

    def test_training_lowers_the_loss(self, name: str) -> None:
        plugin = registry.get("codec", name)
        if not plugin.trained:
            pytest.skip("is not trained")
        torch.manual_seed(0)
        x = correlated(8, 12, (16, 16), 1)
        codec: Any = plugin.build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
        codec.prepare([x])
        with torch.no_grad():
            before = float(loss_of(codec.eval(), {"stage3": x}, 1.0))
        train(codec, {"stage3": x}, 1.0, 40)
        with torch.no_grad():
            assert float(loss_of(codec.eval(), {"stage3": x}, 1.0)) < before

    def test_channels_that_do_not_vary(self, name: str) -> None:
        batch = correlated(8, 12, (16, 16), 1)
        batch[:, 4] = 2.5
        codec: Any = registry.get("codec", name).build(ONE, {"stage3": statistics(batch)}, middle(name))
        codec.prepare([batch])
        codec.freeze()
        x = Features({"stage3": batch[:1]})
        decoded = codec.decode(codec.encode(x).payload, x.shapes).features.maps["stage3"]
        assert bool(torch.isfinite(decoded).all())
        assert float((decoded[:, 4] - 2.5).abs().max()) < self.constant_error
