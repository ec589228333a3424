"""Image codecs of remote inference: files that decode to the image's size, rates that rise, damage that is an error."""

from __future__ import annotations

import importlib
import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from fcbench.core.errors import FcbenchError
from fcbench.images.shared import coder

CODECS = ("jpeg", "webp", "jpegxl", "avif", "hevc", "avif_half", "hevc_half")


def plugin(name: str) -> Any:
    return importlib.import_module(f"fcbench.images.{name}").PLUGIN


def photograph(height: int, width: int) -> np.ndarray:
    """[3, H, W] uint8: smooth, with edges and noise."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)])
    noise = np.random.default_rng(0).normal(size=waves.shape)
    image = 128 + 80 * waves + 8 * noise + 30 * (x > width // 2)
    return np.clip(image, 0, 255).astype(np.uint8)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    mse = np.square(a.astype(float) - b.astype(float)).mean()
    return float(10 * np.log10(255**2 / mse))


@pytest.mark.parametrize("name", CODECS)
def test_rate_and_quality_rise_along_the_sweep(name: str) -> None:
    codec, image = plugin(name), photograph(61, 83)
    files = [codec.encode(image, params) for params in codec.sweep()]
    sizes = [len(f) for f in files]
    assert len(sizes) >= 5 and sizes == sorted(set(sizes))
    decoded = [codec.decode(f) for f in files]
    for d in decoded:
        assert d.shape == image.shape and d.dtype == np.uint8
        assert d.flags.c_contiguous
    qualities = [psnr_db(d, image) for d in decoded]
    assert qualities[-1] > 27 and qualities[-1] > qualities[0] + 5


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("jpeg", 150, 250), ("webp", 20, 20), ("jpegxl", 0, 0), ("avif", 200, 350), ("hevc", 50, 120)],
)
def test_headers_are_what_does_not_depend_on_the_picture(name: str, low: int, high: int) -> None:
    codec, image = plugin(name), photograph(61, 83)
    for params in (codec.sweep()[0], codec.sweep()[-1]):
        files = [codec.encode(i, params) for i in (image, image[:, ::-1, ::-1], 255 - image)]
        counts = [codec.header_bytes(file) for file in files]
        assert max(counts) - min(counts) <= 4, "sizes in headers take a byte more or less"
        assert low <= counts[0] <= high and counts[0] < len(files[0])


def test_headers_of_hevc_are_its_parameter_sets() -> None:
    """As PyAV finds them: what FFmpeg takes out of the stream is ``extradata``."""
    codec = plugin("hevc")
    file = codec.encode(photograph(61, 256), {"qp": 30})
    data = file[4:]  # behind height and width, which end in 00 00 01
    with av.open(io.BytesIO(data), format="hevc") as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None and data[1:].startswith(extradata)  # FFmpeg takes one zero off the first start code
    start_code = b"\0\0\1"  # of the one slice; nothing else comes before it
    assert data[1 + len(extradata) :].startswith(start_code)
    assert codec.header_bytes(file) == 1 + len(extradata) + len(start_code)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 9)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    codec, image = plugin(name), photograph(*size)
    decoded = codec.decode(codec.encode(image, codec.sweep()[-1]))
    assert decoded.shape == image.shape


@pytest.mark.parametrize("name", CODECS)
def test_tensors_are_images_too(name: str) -> None:
    codec, image = plugin(name), photograph(20, 24)
    params = codec.sweep()[3]
    assert codec.encode(torch.from_numpy(image), params) == codec.encode(image, params)


@pytest.mark.parametrize("name", CODECS)
def test_damage_is_an_error_or_a_picture(name: str) -> None:
    codec = plugin(name)
    data = codec.encode(photograph(40, 40), codec.sweep()[3])
    rng, refused = random.Random(0), 0
    cuts = [data[: len(data) * i // 10] for i in range(10)]
    flips = []
    for _ in range(30):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flips.append(bytes(flipped))
    for damaged in [*cuts, *flips, rng.randbytes(500)]:
        try:
            assert codec.decode(damaged).dtype == np.uint8
        except FcbenchError:
            refused += 1
    assert refused >= 3
    with pytest.raises(FcbenchError):
        codec.decode(b"")


@pytest.mark.parametrize("name", (*CODECS, "compressai_image"))
def test_what_cannot_be_coded_is_refused(name: str) -> None:
    codec, image = plugin(name), photograph(16, 16)
    good = codec.sweep()[0]
    for bad in (image.astype(np.float32), image[:1], image[0], image[:, :0]):
        with pytest.raises(FcbenchError, match="image"):
            codec.encode(bad, good)
    knob = next(iter(good))
    for params in ({}, {knob: "high"}, {knob: -1}, {knob: 1e6}, {**good, "more": 1}):
        with pytest.raises(FcbenchError, match=knob):
            codec.encode(image, params)


@pytest.mark.parametrize("name", (*CODECS, "compressai_image"))
def test_versions_are_told(name: str) -> None:
    versions = plugin(name).versions()
    assert len(versions) >= 2 and all(versions.values())


def test_colours_survive_their_conversion() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    back = coder.rgb(coder.ycbcr(image))
    assert np.abs(back.astype(int) - image).max() <= 2
    grey = np.full((2, 2, 3), 77, np.uint8)
    assert [int(p[0, 0]) for p in coder.ycbcr(grey)] == [77, 128, 128]


# ---------------------------------------------------------------------------------- CompressAI
def test_weights_that_are_not_cached_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcbench.images import compressai_image

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    compressai_image._model.cache_clear()
    codec = compressai_image.PLUGIN
    with pytest.raises(FcbenchError, match="download https://.* into .*checkpoints"):
        codec.encode(photograph(16, 16), {"quality": 3})


def test_compressai_codes_and_refuses_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small untrained model in place of the pretrained one: the file format is what is tested."""
    from compressai.models import MeanScaleHyperprior

    from fcbench.images import compressai_image

    torch.manual_seed(0)
    model = MeanScaleHyperprior(8, 12)
    model.update(force=True)
    monkeypatch.setattr(compressai_image, "_model", lambda quality: model.eval())
    codec, image = compressai_image.PLUGIN, photograph(30, 70)
    data = codec.encode(image, {"quality": 2})
    assert codec.decode(data).shape == image.shape
    assert np.array_equal(codec.decode(data), codec.decode(data))
    for damaged in (data[:-4], data[:8], data[:-1] + bytes([data[-1] ^ 1]), b"1234"):
        with pytest.raises(FcbenchError, match="seal"):
            codec.decode(damaged)


@pytest.mark.parametrize("name", ["avif", "hevc"])
def test_half_an_image_has_a_quarter_of_the_pixels_and_its_size_back(name: str) -> None:
    whole, half, image = plugin(name), plugin(f"{name}_half"), photograph(61, 83)
    params = whole.sweep()[-2]
    small = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((42, 31), Image.Resampling.LANCZOS))
    assert half.encode(image, params)[1:] == whole.encode(small.transpose(2, 0, 1), params)
    smooth = np.stack([np.add.outer(np.arange(61), np.arange(83))] * 3).astype(np.uint8)
    decoded = half.decode(half.encode(smooth, whole.sweep()[-1]))
    assert decoded.shape == smooth.shape and psnr_db(decoded, smooth) > 35
    assert half.versions()["pillow"] and half.header_bytes(half.encode(image, params)) > 0
    with pytest.raises(FcbenchError, match=f"{name}_half: a file starts with a byte from 0 to 3"):
        half.decode(b"\x04" + half.encode(image, params)[1:])
    with pytest.raises(FcbenchError, match="parameter"):
        half.check({"no": 1})
