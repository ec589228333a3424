"""Proofs over every encoder: it stays frozen, the codec decides the accuracy, nothing passes around the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from fcbench.core import registry
from fcbench.encoders.shared.weights import state_sha256
from fcbench.features.source import Readable
from fcbench.results import samples, table
from fcbench.transmit import senders
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.senders import Received

Tiny = Callable[..., Result]
SMALLEST = {"timm": "timm:test_efficientnet", "torchvision": "torchvision:lraspp_mobilenet_v3_large"}
"""Of encoders whose default is not their smallest."""
ENCODERS = [SMALLEST.get(name, name) for name in registry.names("encoder") if name != "extracted"]
OPTIONS = ("--task", "segmentation", "--codec", "uniform", "--image-size", "64")
N = ("--n-train", "8", "--n-test", "4")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_proofs(encoder: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoder == "hf":
        transformers: Any = pytest.importorskip("transformers", reason="needs pip install fcbench[transformers]")
        small = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
        small.save_pretrained(tmp_path / "vit")
        encoder = f"hf:{tmp_path / 'vit'}"
    built = _recorded(monkeypatch, registry, "build_encoder")
    _no_images_while_decoding(monkeypatch)
    out = tmp_path / "out"
    result = tiny(out, *OPTIONS, *N, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    ((before, module),) = built
    assert state_sha256(module) == before, "the encoder changed during the run"
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())

    monkeypatch.setattr(senders, "decode", _means(senders.decode))
    flat = tmp_path / "flat"
    result = tiny(flat, *OPTIONS, *N, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    rows = table.load(flat)
    ends = {kind: rows[rows.kind == kind].point.iloc[0] for kind in ("ceiling", "floor")}
    floor, (read, nothing) = _statistics(flat, ends["floor"]), (_likelihoods(flat, ends[k]) for k in ends)
    assert (read != nothing).all(), "what is sent makes no difference"
    for point in rows[rows.kind == "coded"].point.unique():
        assert (_statistics(flat, point) == floor).all(), "something else was read"


def _recorded(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[tuple[str, Any]]:
    """Encoders that a run builds (each once), each with the hash of its parameters at that time."""
    made, build = list[tuple[str, Any]](), getattr(where, name)

    def recording(*args: Any) -> Any:
        encoder = build(*args)
        made.append((state_sha256(encoder.module), encoder.module))
        return encoder

    monkeypatch.setattr(where, name, recording)
    return made


def _no_images_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the end of coding to the end of measuring, no image can be read."""
    decode, read, closed = senders.decode, Readable.__getitem__, [False]

    def blind(*args: Any) -> Iterator[Received]:
        closed[0] = True
        yield from decode(*args)
        closed[0] = False

    def guarded(self: Readable, index: int) -> Any:
        assert not closed[0], "an image was read while coded features were measured"
        return read(self, index)

    monkeypatch.setattr(senders, "decode", blind)
    monkeypatch.setattr(Readable, "__getitem__", guarded)


def _means(decode: Any) -> Any:
    """Decoding that gives the training mean, whatever the file says."""

    def flat(checkpoint: Path, path: Path, *rest: Any) -> Iterator[Received]:
        codec: Any = load_checkpoint(checkpoint).codec
        means = [s.mean.view(1, -1, 1, 1) for s in codec.map_stats]
        for received in decode(checkpoint, path, *rest):
            yield Received({k: m.expand_as(x) for m, (k, x) in zip(means, received.maps.items())})

    return flat


def _likelihoods(out: Path, point: str) -> np.ndarray:
    found = samples.load_samples(out, point).log_likelihood
    assert found is not None
    return found


def _statistics(out: Path, point: str) -> np.ndarray:
    return np.stack(list(samples.load_samples(out, point).stats))


@pytest.mark.parametrize("encoder", ["hiera_nano", "sam2_nano"])
def test_noise_for_features_is_worth_no_more_than_none(
    encoder: str, fcbench: Tiny, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained weights and a neck that works: noise of the features' own mean and deviation brings the floor."""
    decode = senders.decode

    def noise(checkpoint: Path, path: Path, *rest: Any) -> Iterator[Received]:
        stats = [s for s in load_checkpoint(checkpoint).codec.map_stats]  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(0)
        for received in decode(checkpoint, path, *rest):
            yield Received(
                {
                    k: s.mean.view(1, -1, 1, 1) + s.std.view(1, -1, 1, 1) * torch.randn(x.shape, generator=generator)
                    for s, (k, x) in zip(stats, received.maps.items())
                }
            )

    monkeypatch.setattr(senders, "decode", noise)
    out = tmp_path / "out"
    size = ("--n-train", "200", "--n-test", "24", "--task-steps", "40", "--batch", "16")
    result = fcbench(
        "run",
        *size,
        "--threads",
        "1",
        "--device",
        "cpu",
        "--encoder",
        encoder,
        "--task",
        "segmentation",
        "--codec",
        "uniform",
        "--cache-dir",
        cache,
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    df = table.load(out)
    value = df[df.metric == "miou"].groupby("kind").value.max()
    assert value.ceiling > 2 * value.floor, "the neck has learned nothing"
    assert value.coded < value.floor + 0.25 * (value.ceiling - value.floor)
