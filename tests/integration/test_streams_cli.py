"""Streams that a run kept, and what encode, decode and inspect do with its checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from refusals import refused
from safetensors.torch import load_file

from fcbench.codecs.shared.learned import LearnedCodec
from fcbench.core import registry
from fcbench.core.codecs import Bitstream, Decoded
from fcbench.results import table
from fcbench.transmit import container
from fcbench.transmit.checkpoint import load as load_checkpoint
from fcbench.transmit.checkpoint import save

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def checkpoint(finished: Path) -> Path:
    """Of a hyperprior, trained on features of sam2_nano with random weights."""
    found = sorted((finished / "streams").glob("*.safetensors"))
    return next(f for f in found if load_checkpoint(f).point.codec == "hyperprior")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures of 96 x 80."""
    folder, made = tmp_path_factory.mktemp("photos"), []
    rng = np.random.default_rng(3)
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        made.append(folder / f"{i}.png")
        small.resize((80, 96), Image.Resampling.BICUBIC).save(made[-1])
    return made


def test_every_coded_stream_has_its_checkpoint_beside_it(fcbench: Run, finished: Path, tmp_path: Path) -> None:
    streams = sorted((finished / "streams").glob("*.fcb"))
    rows = table.load(finished)
    sizes = set(rows[rows.kind == "coded"].n_bytes)
    assert len(streams) > 4 and {s.stat().st_size for s in streams} == sizes
    for stream in streams[:3]:
        out = tmp_path / f"{stream.stem}.safetensors"
        result = fcbench("decode", stream, "-o", out)
        assert result.exit_code == 0, result.output
        (features,) = load_file(out).values()
        assert len(features) == len(container.ContainerReader(stream))


def test_images_come_back_as_the_features_that_the_codec_makes_of_them(
    fcbench: Run, checkpoint: Path, photos: list[Path], tmp_path: Path
) -> None:
    stream, out = tmp_path / "photos.fcb", tmp_path / "features.safetensors"
    same = ("--checkpoint", checkpoint)
    options = ("--weights", "random", "--device", "cpu", "--json", "-o", stream)
    result = fcbench("encode", *photos, *same, *options)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["n_bytes"] == stream.stat().st_size and said["n_samples"] == 3
    assert said["bpp"] == pytest.approx(8 * said["n_bytes"] / (3 * 96 * 80))
    assert fcbench("decode", stream, *same, "-o", out).exit_code == 0
    decoded = load_file(out)["stage3"]
    assert said["bpfp"] == pytest.approx(8 * said["n_bytes"] / decoded.numel())
    cpu = torch.device("cpu")
    codec: Any = load_checkpoint(checkpoint).codec
    encoder = registry.get("encoder", "sam2_nano").build("", "random", cpu)
    with torch.inference_mode():
        for photo, features in zip(photos, decoded):
            pixels = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)
            maps = encoder(pixels[None], ["stage3"]).maps
            expected = codec.forward(maps)[0]["stage3"]
            torch.testing.assert_close(features, expected[0], rtol=1e-4, atol=1e-4)


def test_a_folder_is_its_images_in_order(fcbench: Run, checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    same = ("--checkpoint", checkpoint, "--weights", "random", "--image-size", "64")
    one, two = tmp_path / "1.fcb", tmp_path / "2.fcb"
    assert fcbench("encode", *photos, *same, "-o", one).exit_code == 0
    assert fcbench("encode", photos[0].parent, *same, "-o", two).exit_code == 0
    assert one.read_bytes() == two.read_bytes()


def test_inspect_says_what_is_in_the_file(fcbench: Run, finished: Path, checkpoint: Path) -> None:
    stream = checkpoint.with_suffix(".fcb")
    result = fcbench("inspect", stream, checkpoint, "--json")
    assert result.exit_code == 0, result.output
    coded, codec = json.loads(result.stdout)
    assert coded["n_bytes"] == stream.stat().st_size
    assert coded["payload_bytes"] + coded["overhead_bytes"] == coded["n_bytes"]
    assert coded["n_samples"] == 8 and coded["codec"] == "hyperprior"
    assert codec["sha256"].startswith(coded["checkpoint_sha256"])
    assert codec["encoder"] == "sam2_nano"
    ((h, w),) = coded["maps"][0]["sizes"]
    assert coded["n_scalars"] == 8 * coded["maps"][0]["channels"] * h * w
    rows = table.load(finished)
    row = rows[rows.n_bytes == coded["n_bytes"]].iloc[0]
    assert row.n_points == coded["n_scalars"]
    assert coded["parts_bytes"] == json.loads(row.parts) and sum(coded["parts_bytes"].values()) == row.n_bytes
    assert list(coded["parts_bytes"]) == ["z", "y", "container"]
    shown = fcbench("inspect", stream, checkpoint).stdout
    assert "hyperprior(lmbda=" in shown and f"{h}x{w}" in shown and f"z: {coded['parts_bytes']['z']} (" in shown


def test_a_stream_without_its_checkpoint_has_a_payload_and_a_container(
    fcbench: Run, checkpoint: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.fcb"
    alone.write_bytes(checkpoint.with_suffix(".fcb").read_bytes())
    (coded,) = json.loads(fcbench("inspect", alone, "--json").stdout)
    assert coded["parts_bytes"] == {"payload": coded["payload_bytes"], "container": coded["overhead_bytes"]}
    alone.with_suffix(".safetensors").write_bytes(b"another")
    assert "alone.safetensors" in refused(fcbench("inspect", alone))


def test_inspect_refuses_what_decode_refuses(
    fcbench: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = container.ContainerReader(checkpoint.with_suffix(".fcb")), tmp_path / "bad.fcb"
    bad.with_suffix(".safetensors").write_bytes(checkpoint.read_bytes())
    with container.ContainerWriter(bad, replace(good.header, codec="uniform")) as writer:
        writer.append(Bitstream({"y": good[0].payload}, good[0].n_symbols, good[0].check), good[0].shapes)
    assert "bad.fcb has the codec uniform in its header" in refused(fcbench("inspect", bad))
    bad.write_bytes(checkpoint.with_suffix(".fcb").read_bytes())
    monkeypatch.setattr(LearnedCodec, "decode", lambda *_: 1 // 0)
    assert "bad.fcb, record 0: " in refused(fcbench("inspect", bad))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: data[:-3], "truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "CRC mismatch"),
        (lambda data: b"", "truncated"),
    ],
)
def test_damaged_files_are_refused(
    fcbench: Run, checkpoint: Path, tmp_path: Path, damage: Callable[[bytes], bytes], what: str
) -> None:
    bad = tmp_path / "bad.fcb"
    bad.write_bytes(damage(checkpoint.with_suffix(".fcb").read_bytes()))
    assert what in refused(fcbench("inspect", bad))
    out = tmp_path / "f.safetensors"
    refused(fcbench("decode", bad, "--checkpoint", checkpoint, "-o", out))
    assert not out.exists()


def test_what_does_not_belong_together_is_refused(
    fcbench: Run, finished: Path, checkpoint: Path, photos: list[Path], tmp_path: Path
) -> None:
    stream, out = checkpoint.with_suffix(".fcb"), tmp_path / "out"
    other = next(f for f in (finished / "streams").glob("*.safetensors") if load_checkpoint(f).point.codec == "uniform")
    decode = ("decode", stream, "-o", out, "--checkpoint")
    assert "was coded with the checkpoint" in refused(fcbench(*decode, other))
    encode = ("encode", "-o", out, "--checkpoint", checkpoint)
    embedded = refused(fcbench(*encode, photos[0]))
    assert "give the same --weights" in embedded
    larger = tmp_path / "large.png"
    Image.new("RGB", (100, 96)).save(larger)
    random = ("--weights", "random")
    several = refused(fcbench(*encode, *random, photos[0], larger))
    assert "96x80" in several and "--image-size" in several
    missing = refused(fcbench(*encode, *random, tmp_path / "none.png"))
    assert "none.png" in missing
    alone = tmp_path / "alone.fcb"
    alone.write_bytes(stream.read_bytes())
    assert "--checkpoint FILE" in refused(fcbench("decode", alone, "-o", out))
    assert not out.exists()


def test_coded_images_and_labels_hold_no_features(fcbench: Run, tiny: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    codecs = ("--codec", "image:jpeg", "--codec", "label")
    assert tiny(run, *codecs, "--task", "pose", "--keep-streams").exit_code == 0
    streams = sorted((run / "streams").iterdir())
    assert {s.suffix for s in streams} == {".fcb"}  # no codec, no checkpoint
    for stream in streams:
        out = tmp_path / "f.safetensors"
        assert "holds no features" in refused(fcbench("decode", stream, "-o", out))


# --------------------------------------------------------------------------------------- not finite
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    fcbench: Run, checkpoint: Path, photos: list[Path], tmp_path: Path, value: float
) -> None:
    loaded = load_checkpoint(checkpoint)
    codec: Any = loaded.codec
    name, weights = next(iter(codec.named_parameters()))
    weights.data.view(-1)[0] = value
    save(tmp_path / "bad.safetensors", codec, loaded.point, loaded.specs, loaded.source)
    same = "--checkpoint", tmp_path / "bad.safetensors", "--weights", "random", "--device", "cpu"
    line = refused(fcbench("encode", *photos, *same, "-o", tmp_path / "a.fcb"))
    assert "bad.safetensors holds values that are not finite" in line and name in line
    shutil.copy(checkpoint.with_suffix(".fcb"), tmp_path / "bad.fcb")
    assert "bad.safetensors" in refused(fcbench("decode", tmp_path / "bad.fcb", "-o", tmp_path / "b.safetensors"))


def test_decoded_values_that_are_not_finite_are_refused(
    fcbench: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_checkpoint(checkpoint)
    decode = type(loaded.codec).decode

    def damaged(self: Any, payload: bytes, shapes: Any) -> Decoded:
        found = decode(self, payload, shapes)
        next(iter(found.features.maps.values())).view(-1)[5] = float("nan")
        return found

    monkeypatch.setattr(type(loaded.codec), "decode", damaged)
    stream = checkpoint.with_suffix(".fcb")
    line = refused(fcbench("decode", stream, "-o", tmp_path / "b.safetensors"))
    assert f"{stream.name}, record 0 decodes to values at stage3 that are not finite" in line
