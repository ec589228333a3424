"""What every codec promises, tried on every codec that is registered."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcbench.core import registry
from fcbench.core.codecs import Bitstream, EstimatingCodec, OperatingPoint, with_check
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.transmit import checkpoint
from fcbench.transmit.container import ContainerReader, ContainerWriter, Header


def _here(name: str) -> bool:
    """All codecs but VVC need nothing that pip does not install."""
    return name != "vvc" or bool(shutil.which("vvencapp"))


CODECS = [n for n in registry.names("codec") if _here(n)]
LEARNED = [name for name in CODECS if registry.get("codec", name).trained]
GRIDS = [(1, 1), (5, 7), (8, 8), (23, 30)]
SOURCE = checkpoint.Source("hiera_nano", "00" * 32)
ONE = (FeatureSpec("stage3", 12, 16),)
TWO = (FeatureSpec("layer.2", 6, 8), FeatureSpec("layer.3", 10, 16))


def correlated(n: int, channels: int, grid: tuple[int, int], seed: int) -> Tensor:
    """[n, C, h, w] Gaussian features, correlated over channels and space, unequal in scale, off zero."""
    generator = torch.Generator().manual_seed(seed)
    h, w = grid
    noise = torch.randn(n, channels, h + 2, w + 2, generator=generator)
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(channels))
    x = torch.einsum("dc,nchw->ndhw", mixing, F.avg_pool2d(noise, 3, 1))
    scale = torch.logspace(-1, 1, channels)[:, None, None]
    return scale * (x + 3.0)


def draw(specs: Sequence[FeatureSpec], n: int, grid: tuple[int, int], seed: int) -> list[Tensor]:
    """One batch of each map; the coarser ones have half the size."""
    grids = [grid, ((grid[0] + 1) // 2, (grid[1] + 1) // 2)]
    return [correlated(n, s.channels, g, seed) for s, g in zip(specs, grids, strict=False)]


def statistics(x: Tensor) -> FeatureStats:
    flat = x.transpose(0, 1).flatten(1)
    return FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))


def train(codec: Any, maps: dict[str, Tensor], lmbda: float, n_steps: int) -> None:
    codec.train()
    optimizer = torch.optim.Adam(codec.parameters(), 1e-3)
    n_points = sum(x.numel() for x in maps.values())
    for _ in range(n_steps):
        decoded, bits = codec(maps)
        mse = torch.stack([(decoded[k] - x).square().mean() / x.var() for k, x in maps.items()]).mean()
        loss = bits.sum() / n_points + lmbda * mse
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def make(name: str, specs: tuple[FeatureSpec, ...], params: Mapping[str, Any], n_steps: int = 3) -> Any:
    """A frozen codec."""
    torch.manual_seed(0)
    batches = draw(specs, 8, (16, 16), seed=1)
    stats = {s.name: statistics(x) for s, x in zip(specs, batches, strict=True)}
    codec = registry.get("codec", name).build(specs, stats, params)
    codec.prepare(batches)
    if registry.get("codec", name).trained:
        maps = {s.name: x for s, x in zip(specs, batches, strict=True)}
        train(codec, maps, float(params["lmbda"]), n_steps)
    codec.freeze()
    return codec


def middle(name: str) -> dict[str, Any]:
    sweep = registry.get("codec", name).sweep("mse")
    return dict(sweep[len(sweep) // 2])


@pytest.fixture(scope="module", params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def codec(name: str) -> Any:
    return make(name, ONE, middle(name))


@pytest.fixture(scope="module")
def codec_two(name: str) -> Any:
    return make(name, TWO, middle(name))


def features(specs: Sequence[FeatureSpec], grid: tuple[int, int], seed: int = 2) -> Features:
    maps = draw(specs, 1, grid, seed)
    return Features({s.name: x for s, x in zip(specs, maps, strict=True)})


def coded(codec: Any, x: Features) -> Bitstream:
    """What a file gets."""
    return with_check(codec.encode(x), codec, x.shapes)


def assert_close(actual: Features, expected: Mapping[str, Tensor]) -> None:
    assert list(actual.maps) == list(expected)
    for key, x in expected.items():
        assert actual.maps[key].shape == x.shape and actual.maps[key].dtype == torch.float32
        torch.testing.assert_close(actual.maps[key], x, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------ coding
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n_maps", [1, 2])
def test_decoding_gives_what_forward_gives(codec: Any, codec_two: Any, n_maps: int, grid: tuple[int, int]) -> None:
    specs, chosen = (ONE, codec) if n_maps == 1 else (TWO, codec_two)
    x = features(specs, grid)
    stream = coded(chosen, x)
    decoded = chosen.decode(stream.payload, x.shapes)
    assert (decoded.n_symbols, decoded.check) == (stream.n_symbols, stream.check)
    assert stream.payload == b"".join(stream.parts.values())
    if not isinstance(chosen, EstimatingCodec):
        return
    with torch.no_grad():
        expected, bits = chosen(x.maps)
        assert torch.equal(chosen.estimate_bits(x.maps), bits)
    assert_close(decoded.features, expected)
    assert bits.shape == (1,)
    assert len(stream.payload) <= 1.02 * float(bits) / 8 + 16


def test_coding_needs_no_order_of_maps(codec_two: Any) -> None:
    x = features(TWO, (5, 7))
    swapped = Features(dict(reversed(x.maps.items())))
    assert codec_two.encode(swapped) == codec_two.encode(x)


def test_a_fresh_object_from_checkpoint_and_file_alone(name: str, codec_two: Any, tmp_path: Path) -> None:
    point = OperatingPoint(name, middle(name))
    sha256 = checkpoint.save(tmp_path / "c.safetensors", codec_two, point, TWO, SOURCE)
    assert sha256 == hashlib.sha256((tmp_path / "c.safetensors").read_bytes()).hexdigest()
    samples = [features(TWO, grid) for grid in GRIDS]
    with ContainerWriter(tmp_path / "a.fcb", Header(name, sha256, TWO)) as writer:
        for x in samples:
            writer.append(coded(codec_two, x), x.shapes)
    loaded = checkpoint.load(tmp_path / "c.safetensors")
    assert (loaded.point, loaded.specs, loaded.sha256) == (point, TWO, sha256)
    reader = ContainerReader(tmp_path / "a.fcb")
    reader.verify_checkpoint(loaded.sha256)
    for record, x in zip(reader, samples, strict=True):
        decoded = loaded.codec.decode(record.payload, record.shapes)
        record.verify(decoded)
        here = codec_two.decode(record.payload, record.shapes)
        for key in x.maps:
            assert torch.equal(decoded.features.maps[key], here.features.maps[key])
        assert loaded.codec.encode(x).payload == record.payload


DECODE = """
import hashlib, sys
from pathlib import Path
import torch
from fcbench.transmit.container import ContainerReader
from fcbench.transmit import checkpoint
torch.set_num_threads(int(sys.argv[2]))
folder = Path(sys.argv[1])
loaded, digest = checkpoint.load(folder / "c.safetensors"), hashlib.sha256()
for record in ContainerReader(folder / "a.fcb"):
    decoded = loaded.codec.decode(record.payload, record.shapes)
    record.verify(decoded)
    for x in decoded.features.maps.values():
        digest.update(x.numpy().tobytes())
print(digest.hexdigest())
"""


def test_a_fresh_process_decodes_the_same(name: str, codec: Any, tmp_path: Path) -> None:
    sha256 = checkpoint.save(tmp_path / "c.safetensors", codec, OperatingPoint(name, middle(name)), ONE, SOURCE)
    x = features(ONE, (23, 30))
    stream = coded(codec, x)
    with ContainerWriter(tmp_path / "a.fcb", Header(name, sha256, ONE)) as writer:
        writer.append(stream, x.shapes)
    command = [sys.executable, "-c", DECODE, str(tmp_path), "2"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    decoded = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
    assert done.stdout.strip() == hashlib.sha256(decoded.numpy().tobytes()).hexdigest()


def test_same_bytes_at_any_thread_count_and_mode(codec: Any) -> None:
    x = features(ONE, (23, 30))
    before, streams = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            streams.append(codec.encode(x))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    codec.train()
    streams.append(codec.encode(x))
    codec.eval()
    assert streams[0] == streams[1] == streams[2]


def test_frozen_codec_passes_gradients_after_coding_in_inference_mode(codec_two: Any) -> None:
    if not isinstance(codec_two, EstimatingCodec):
        pytest.skip("codes and decodes only")
    x = features(TWO, (5, 7))
    with torch.inference_mode():
        codec_two.encode(x)
    maps = {key: value.clone().requires_grad_() for key, value in x.maps.items()}
    decoded, bits = codec_two(maps)
    sum(value.sum() for value in decoded.values()).backward()
    assert bits.shape == (1,)
    for key, value in maps.items():
        assert value.grad is not None and bool(value.grad.abs().sum() > 0), key


# ------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_a_number_is_refused(codec: Any, bad: float) -> None:
    x = features(ONE, (5, 7))
    x.maps["stage3"][0, 3, 2, 1] = bad
    with pytest.raises(FcbenchError, match="NaN or inf"):
        codec.encode(x)


def test_wrong_features_are_refused(codec: Any) -> None:
    good = features(ONE, (5, 7)).maps["stage3"]
    for maps, message in [
        ({}, "stage3"),
        ({"other": good}, "stage3"),
        ({"stage3": good[:, :, :0]}, "empty"),
        ({"stage3": good[:, :5]}, "12"),
        ({"stage3": good.repeat(2, 1, 1, 1)}, "one sample"),
    ]:
        with pytest.raises(FcbenchError, match=message):
            codec.encode(Features(maps))
    for shapes in ({}, {"other": (5, 7)}, {"stage3": (0, 7)}, {"stage3": (1 << 20, 1 << 20)}):
        with pytest.raises(FcbenchError):
            codec.decode(b"1234", shapes)


def test_huge_features_are_coded_or_refused(codec: Any) -> None:
    x = Features({"stage3": features(ONE, (5, 7)).maps["stage3"] * 1e30})
    try:
        stream = coded(codec, x)
    except FcbenchError:
        return
    assert codec.decode(stream.payload, x.shapes).check == stream.check


def test_damaged_payloads_never_pass(codec: Any) -> None:
    """Each is an error, or another check than the stream's, or the very same integers (padding bits)."""
    x = features(ONE, (5, 7))
    stream = coded(codec, x)
    good = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
    payload, rng, seen = stream.payload, random.Random(0), 0
    cuts = [payload[:n] for n in range(0, len(payload), max(1, len(payload) // 40))]
    flips = [_flip(payload, rng.randrange(8 * len(payload))) for _ in range(150)]
    for damaged in [*cuts, *flips, rng.randbytes(len(payload)), payload + b"\xff\xff\xff\xff"]:
        try:
            decoded = codec.decode(damaged, x.shapes)
        except FcbenchError:
            seen += 1
            continue
        if decoded.check != stream.check:
            seen += 1
        else:
            assert torch.equal(decoded.features.maps["stage3"], good)
    assert seen >= len(cuts) + 0.9 * len(flips)


def _flip(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_damaged_checkpoints_are_refused(name: str, codec: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, codec, OperatingPoint(name, middle(name)), ONE, SOURCE)
    data = path.read_bytes()
    rng = random.Random(0)
    flips = [_flip(data, rng.randrange(8 * len(data))) for _ in range(20)]
    header = [_flip(data, rng.randrange(64, 4096)) for _ in range(20)]
    for damaged in [b"", b"PK\x03\x04", data[:100], data[:-1], data + b"0", *flips, *header]:
        path.write_bytes(damaged)
        with pytest.raises(FcbenchError):
            checkpoint.load(path)
    with pytest.raises(FcbenchError, match="cannot read"):
        checkpoint.load(tmp_path / "absent")


def test_unknown_parameters_are_refused(name: str) -> None:
    plugin = registry.get("codec", name)
    stats = {"stage3": statistics(correlated(4, 12, (5, 7), 0))}
    known = middle(name)
    for params in ({}, {**known, "surprise": 1}, {k: "no" for k in known}, {k: -1 for k in known}):
        with pytest.raises(FcbenchError):
            plugin.build(ONE, stats, params)


# ------------------------------------------------------------------------------------------ plug-ins
def test_sweeps_build_and_are_long_enough(name: str) -> None:
    plugin = registry.get("codec", name)
    stats = {"stage3": statistics(correlated(4, 12, (5, 7), 0))}
    for objective in ("mse", "task"):
        sweep = plugin.sweep(objective)
        assert len(sweep) >= (2 if name == "raw" else 5)
        labels = {OperatingPoint(name, params).label for params in sweep}
        assert len(labels) == len(sweep)
        for params in sweep:
            plugin.build(ONE, stats, params)


def test_rate_rises_and_error_falls_along_the_sweep(name: str) -> None:
    sweep = registry.get("codec", name).sweep("mse")
    x = features(ONE, (23, 30))
    scale = statistics(x.maps["stage3"]).std[:, None, None]
    rates, errors = [], []
    for params in sweep:
        codec = make(name, ONE, params, n_steps=0)
        stream = codec.encode(x)
        decoded = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
        rates.append(8 * len(stream.payload) / x.n_points)
        errors.append(float(((decoded - x.maps["stage3"]) / scale).square().mean()))
    assert rates == sorted(rates) and len(set(rates)) == len(rates)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1
    assert name == "raw" or errors[0] > 4 * errors[-1]


def test_channels_that_do_not_vary(name: str) -> None:
    batch = correlated(8, 12, (16, 16), 1)
    batch[:, 4] = 2.5
    flat = statistics(batch)
    stats = FeatureStats(flat.mean, torch.where(flat.std > 0, flat.std, torch.ones(())), flat.low, flat.high)
    codec = registry.get("codec", name).build(ONE, {"stage3": stats}, middle(name))
    codec.prepare([batch])
    codec.freeze()
    x = Features({"stage3": batch[:1]})
    decoded = codec.decode(codec.encode(x).payload, x.shapes).features.maps["stage3"]
    assert bool((decoded[:, 4] - 2.5).abs().max() < 0.35)


# ------------------------------------------------------------------------------------------ learning
@pytest.mark.parametrize("learned", LEARNED)
def test_training_lowers_the_loss_and_reaches_every_parameter(learned: str) -> None:
    torch.manual_seed(0)
    x = correlated(8, 12, (16, 16), 1)
    codec = registry.get("codec", learned).build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
    codec.prepare([x])

    def loss() -> Tensor:
        decoded, bits = codec({"stage3": x})
        normalized = (decoded["stage3"] - x) / statistics(x).std[:, None, None]
        assert bits.shape == (8,)
        total: Tensor = bits.sum() / x.numel() + normalized.square().mean()
        return total

    codec.eval()
    before = float(loss().detach())
    start = {k: v.detach().clone() for k, v in codec.named_parameters()}
    codec.train()
    optimizer = torch.optim.Adam(codec.parameters(), 1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    codec.eval()
    assert float(loss().detach()) < before
    same = [k for k, v in codec.named_parameters() if torch.equal(v, start[k])]
    assert same == []


@pytest.mark.parametrize("learned", LEARNED)
def test_start_is_near_lossless_at_high_rate(learned: str) -> None:
    x = correlated(8, 12, (16, 16), 1)
    codec = registry.get("codec", learned).build(ONE, {"stage3": statistics(x)}, {"lmbda": 1e4})
    codec.prepare([x])
    decoded, _ = codec.eval()({"stage3": x})
    error = (decoded["stage3"] - x) / statistics(x).std[:, None, None]
    assert float(error.square().mean()) == pytest.approx(1 / (2 * 1e4 * 0.6931), rel=0.1)  # step**2 / 12


@pytest.mark.parametrize("learned", LEARNED)
def test_coding_before_freeze_is_refused(learned: str) -> None:
    x = correlated(4, 12, (5, 7), 1)
    codec = registry.get("codec", learned).build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
    codec.prepare([x])
    with pytest.raises(FcbenchError, match="freeze"):
        codec.encode(Features({"stage3": x[:1]}))


def test_raw_fp32_is_lossless_and_fp16_refuses_overflow() -> None:
    x = features(ONE, (5, 7))
    exact = make("raw", ONE, {"dtype": "fp32"})
    decoded = exact.decode(exact.encode(x).payload, x.shapes)
    assert torch.equal(decoded.features.maps["stage3"], x.maps["stage3"])
    half = make("raw", ONE, {"dtype": "fp16"})
    assert len(half.encode(x).payload) == 2 * x.n_points
    x.maps["stage3"][0, 0, 0, 0] = 7e4
    with pytest.raises(FcbenchError, match="fp32"):
        half.encode(x)


def test_uniform_clips_outliers_to_the_training_range() -> None:
    codec = make("uniform", ONE, {"bits": 8})
    x = features(ONE, (5, 7))
    x.maps["stage3"][0, 0, 0, 0] = 1e6
    decoded = codec.decode(codec.encode(x).payload, x.shapes).features.maps["stage3"]
    trained = correlated(8, 12, (16, 16), 1)[:, 0]
    assert float(decoded[0, 0, 0, 0]) == pytest.approx(float(trained.max()), abs=0.1 * float(trained.std()))
