"""The contract of codecs, and the stricter rules of this house, tried on every built-in codec."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fcbench.core import registry
from fcbench.core.codecs import EstimatingCodec, OperatingPoint
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.testing.codecs import (
    DECODE,
    SOURCE,
    CodecContract,
    coded,
    damages,
    environment,
    flip,
    loss_of,
    make,
    middle,
    train,
    write,
)
from fcbench.testing.maps import GRIDS, ONE, TWO, correlated, features, statistics
from fcbench.transmit import checkpoint, senders
from fcbench.transmit.container import ContainerReader, ContainerWriter, Header


def _here(name: str) -> bool:
    """Whether what the codec needs is on this machine: all but VVC need nothing that pip does not install."""
    return name != "vvc" or bool(shutil.which("vvencapp"))


CODECS = [n for n in registry.names("codec") if _here(n)]


@cache
def _other_process() -> subprocess.Popen[str]:
    """A process with two threads that decodes the streams of all codecs: starting one for each takes a minute more."""
    command = [sys.executable, "-c", DECODE, "2"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())


class HouseRules(CodecContract):
    """Message texts, closed-form quality, sweeps of five points, the same bytes whatever the threads."""

    constant_error = 0.35

    def decoded_elsewhere(self, folder: Path) -> str:
        other = _other_process()
        assert other.stdin and other.stdout
        other.stdin.write(f"{folder}\n")
        other.stdin.flush()
        return other.stdout.readline().strip()

    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("n_maps", [1, 2])
    def test_decoding_gives_what_forward_gives(
        self, codec: Any, codec_two: Any, n_maps: int, grid: tuple[int, int]
    ) -> None:
        specs, chosen = (ONE, codec) if n_maps == 1 else (TWO, codec_two)
        if not isinstance(chosen, EstimatingCodec):
            pytest.skip("codes and decodes only")
        x = features(specs, grid)
        stream = coded(chosen, x)
        decoded = chosen.decode(stream.payload, x.shapes)
        with torch.no_grad():
            expected, bits = chosen(x.maps)  # type: ignore[operator]
            assert torch.equal(chosen.estimate_bits(x.maps), bits)
        for key, value in expected.items():
            torch.testing.assert_close(decoded.features.maps[key], value, rtol=1e-3, atol=1e-4)
        assert len(stream.payload) <= 1.02 * float(bits) / 8 + 16

    def test_checkpoint_and_file_say_what_belongs_together(self, name: str, codec_two: Any, tmp_path: Path) -> None:
        write(tmp_path, name, codec_two, TWO, [features(TWO, (5, 7))])
        loaded = checkpoint.load(tmp_path / "c.safetensors")
        assert loaded.sha256 == hashlib.sha256((tmp_path / "c.safetensors").read_bytes()).hexdigest()
        ContainerReader(tmp_path / "a.fcb").verify_checkpoint(loaded.sha256)

    def test_same_bytes_at_any_thread_count_and_mode(self, codec: Any) -> None:
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

    def test_frozen_codec_passes_gradients_after_coding_in_inference_mode(self, codec_two: Any) -> None:
        if not isinstance(codec_two, EstimatingCodec):
            pytest.skip("codes and decodes only")
        x = features(TWO, (5, 7))
        with torch.inference_mode():
            codec_two.encode(x)
        maps = {key: value.clone().requires_grad_() for key, value in x.maps.items()}
        decoded, bits = codec_two(maps)  # type: ignore[operator]
        sum(value.sum() for value in decoded.values()).backward()
        assert bits.shape == (1,)
        for key, value in maps.items():
            assert value.grad is not None and bool(value.grad.abs().sum() > 0), key

    # --------------------------------------------------------------------------------------- refusals
    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_not_a_number_is_refused(self, codec: Any, bad: float) -> None:
        x = features(ONE, (5, 7))
        x.maps["stage3"][0, 3, 2, 1] = bad
        with pytest.raises(FcbenchError, match="NaN or inf"):
            codec.encode(x)

    def test_wrong_features_are_refused(self, codec: Any) -> None:
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

    def test_huge_features_are_coded_or_refused(self, codec: Any) -> None:
        x = Features({"stage3": features(ONE, (5, 7)).maps["stage3"] * 1e30})
        try:
            stream = coded(codec, x)
        except FcbenchError:
            return
        assert codec.decode(stream.payload, x.shapes).check == stream.check

    def test_damaged_payloads_never_pass(self, codec: Any) -> None:
        """Each is a clear error, or another check than the stream's, or the very same integers (padding bits)."""
        x = features(ONE, (5, 7))
        stream = coded(codec, x)
        good = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
        all_damaged, seen = damages(stream.payload), 0
        for damaged in all_damaged:
            try:
                decoded = codec.decode(damaged, x.shapes)
            except FcbenchError:
                seen += 1
                continue
            if decoded.check != stream.check:
                seen += 1
            else:
                assert torch.equal(decoded.features.maps["stage3"], good)
        n_flips = 150
        assert seen >= len(all_damaged) - 2 - 0.1 * n_flips

    @pytest.mark.parametrize("surplus", [b"\0", b"\1", b"\xff", bytes(64), b"\xff" * 64])
    @pytest.mark.parametrize("n_maps", [1, 2])
    def test_surplus_bytes_are_refused(
        self, name: str, codec: Any, codec_two: Any, n_maps: int, surplus: bytes, tmp_path: Path
    ) -> None:
        """In a file whose checksums fit."""
        specs, chosen = (ONE, codec) if n_maps == 1 else (TWO, codec_two)
        x = features(specs, (5, 7))
        stream = coded(chosen, x)
        sha256 = checkpoint.save(tmp_path / "c.safetensors", chosen, OperatingPoint(name, middle(name)), specs, SOURCE)
        with ContainerWriter(tmp_path / "a.fcb", Header(name, sha256, specs)) as writer:
            writer.append(stream, x.shapes)
            writer.append(replace(stream, parts={**stream.parts, "surplus": surplus}), x.shapes)
        with pytest.raises(FcbenchError, match="a.fcb, record 1: ") as caught:
            list(senders.decode(tmp_path / "c.safetensors", tmp_path / "a.fcb"))
        assert len(str(caught.value).splitlines()) == 1

    def test_damaged_checkpoints_are_refused(self, name: str, codec: Any, tmp_path: Path) -> None:
        path = tmp_path / "c.safetensors"
        checkpoint.save(
            path, codec, OperatingPoint(name, middle(name)), ONE, checkpoint.Source("hiera_nano", "00" * 32)
        )
        data = path.read_bytes()
        rng = random.Random(0)
        flips = [flip(data, rng.randrange(8 * len(data))) for _ in range(20)]
        header = [flip(data, rng.randrange(64, 4096)) for _ in range(20)]
        for damaged in [b"", b"PK\x03\x04", data[:100], data[:-1], data + b"0", *flips, *header]:
            path.write_bytes(damaged)
            with pytest.raises(FcbenchError):
                checkpoint.load(path)
        with pytest.raises(FcbenchError, match="cannot read"):
            checkpoint.load(tmp_path / "absent")

    def test_unknown_knobs_are_refused(self, name: str) -> None:
        stats = {"stage3": statistics(correlated(4, 12, (5, 7), 0))}
        known = middle(name)
        for knobs in ({}, {**known, "surprise": 1}, {k: "no" for k in known}, {k: -1 for k in known}):
            with pytest.raises(FcbenchError):
                registry.get("codec", name).build(ONE, stats, knobs)

    # ---------------------------------------------------------------------------------------- quality
    def test_sweeps_are_long_enough(self, name: str) -> None:
        plugin = registry.get("codec", name)
        assert min(len(plugin.sweep("mse")), len(plugin.sweep("task"))) >= (2 if name == "raw" else 5)

    def test_a_sweep_goes_from_low_to_high_rate(self, name: str) -> None:
        """Without any training; the error falls as the rate rises."""
        x = features(ONE, (23, 30))
        scale = statistics(x.maps["stage3"]).std[:, None, None]
        rates, errors = [], []
        for knobs in registry.get("codec", name).sweep("mse"):
            codec = make(name, ONE, knobs, n_steps=0)
            stream = codec.encode(x)
            decoded = codec.decode(stream.payload, x.shapes).features.maps["stage3"]
            rates.append(len(stream.payload))
            errors.append(float(((decoded - x.maps["stage3"]) / scale).square().mean()))
        assert rates == sorted(rates) and len(set(rates)) == len(rates)
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.1
        assert name == "raw" or errors[0] > 4 * errors[-1]

    def test_training_lowers_the_loss(self, name: str) -> None:
        """And reaches every parameter."""
        plugin = _learned(name)
        torch.manual_seed(0)
        x = correlated(8, 12, (16, 16), 1)
        codec: Any = plugin.build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
        codec.prepare([x])
        before = float(loss_of(codec.eval(), {"stage3": x}, 1.0).detach())
        start = {k: v.detach().clone() for k, v in codec.named_parameters()}
        train(codec, {"stage3": x}, 1.0, 40)
        assert float(loss_of(codec.eval(), {"stage3": x}, 1.0).detach()) < before
        assert [k for k, v in codec.named_parameters() if torch.equal(v, start[k])] == []

    def test_start_is_near_lossless_at_high_rate(self, name: str) -> None:
        plugin, x = _learned(name), correlated(8, 12, (16, 16), 1)
        codec: Any = plugin.build(ONE, {"stage3": statistics(x)}, {"lmbda": 1e4})
        codec.prepare([x])
        decoded, _ = codec.eval()({"stage3": x})
        error = (decoded["stage3"] - x) / statistics(x).std[:, None, None]
        assert float(error.square().mean()) == pytest.approx(1 / (2 * 1e4 * 0.6931), rel=0.1)  # step**2 / 12

    def test_coding_before_freeze_is_refused(self, name: str) -> None:
        plugin, x = _learned(name), correlated(4, 12, (5, 7), 1)
        codec: Any = plugin.build(ONE, {"stage3": statistics(x)}, {"lmbda": 1.0})
        codec.prepare([x])
        with pytest.raises(FcbenchError, match="freeze"):
            codec.encode(Features({"stage3": x[:1]}))


def _learned(name: str) -> Any:
    """The plug-in, where it is trained."""
    plugin = registry.get("codec", name)
    if not plugin.trained:
        pytest.skip("is not trained")
    return plugin


for _name in CODECS:
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (HouseRules,), {"plugin": _name})


# --------------------------------------------------------------------------------------------- single codecs
def test_raw_fp32_is_lossless_and_fp16_refuses_overflow() -> None:
    x = features(ONE, (5, 7))
    exact = make("raw", ONE, {"dtype": "fp32"})
    decoded = exact.decode(exact.encode(x).payload, x.shapes)
    assert torch.equal(decoded.features.maps["stage3"], x.maps["stage3"])
    half = make("raw", ONE, {"dtype": "fp16"})
    assert len(half.encode(x).payload) == 2 * sum(m.numel() for m in x.maps.values())
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
