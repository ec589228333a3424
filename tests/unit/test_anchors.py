"""What anchors promise beyond the codecs' contract: bounds, bits, versions, missing programs."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.codecs.pq import k_means, nearest
from fcbench.coders import video, vvc, zstd
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats

SPEC = (FeatureSpec("s", 6, 8),)
PICTURES = ("hevc", "av1", "jpeg2000", "jpegxl", "jpeg", "webp")
FLOATS = ("zfp", "sz3", "sperr")


def smooth(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, 24, 24, generator=generator)
    scale = torch.tensor([0.1, 0.3, 1.0, 3.0, 10.0, 30.0])[:, None, None]
    return scale * (3 * torch.nn.functional.avg_pool2d(x, 3, 1, 1) + 5)


def make(name: str, params: dict[str, Any]) -> Any:
    x = smooth(4, 1)
    flat = x.transpose(0, 1).flatten(1)
    given = FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))
    codec = registry.get("codec", name).build(SPEC, {"s": given}, params)
    codec.prepare([x])
    codec.freeze()
    return codec


def normalized_error(codec: Any, x: torch.Tensor) -> torch.Tensor:
    features = Features({"s": x})
    decoded = codec.decode(codec.encode(features).payload, features.shapes)
    stats = codec.map_stats[0]
    low = torch.maximum(stats.low, stats.mean - 6 * stats.std)
    high = torch.minimum(stats.high, stats.mean + 6 * stats.std)
    clipped = torch.minimum(torch.maximum(x, low), high)
    return (decoded.features.maps["s"] - clipped) / stats.std


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("tolerance", [0.02, 0.5])
def test_float_coders_keep_their_bound(name: str, tolerance: float) -> None:
    error = normalized_error(make(name, {"tolerance_std": tolerance}), smooth(1, 2))
    assert float(error.abs().max()) <= tolerance * 1.001
    assert float(error.abs().max()) > 0


@pytest.mark.parametrize("name", PICTURES)
def test_every_depth_codes(name: str) -> None:
    plugin: Any = registry.get("codec", name)
    finest = plugin.sweep("mse")[-1]
    for bits in plugin.bits:
        error = normalized_error(make(name, {**finest, "bits": bits}), smooth(1, 2))
        assert float(error.square().mean()) < 0.05, bits
    with pytest.raises(FcbenchError, match="bits"):
        make(name, {**finest, "bits": 9})


@pytest.mark.parametrize("name", ("hevc", "av1", "jpeg", "pq"))
def test_knobs_that_count_are_whole(name: str) -> None:
    params = registry.get("codec", name).sweep("mse")[0]
    knob = next(iter(params))
    with pytest.raises(FcbenchError, match="whole"):
        make(name, {**params, knob: 3.5})


@pytest.mark.parametrize("name", (*PICTURES, *FLOATS, "raw"))
def test_versions_are_told(name: str) -> None:
    versions = registry.get("codec", name).versions()
    assert len(versions) >= 2
    assert all(isinstance(v, str) and v for v in versions.values())
    assert any(character.isdigit() for character in "".join(versions.values()))


def test_x265_tells_its_own_version() -> None:
    assert "build" in video.hevc_versions()["libx265"]


def test_a_string_of_no_frame_is_refused() -> None:
    for data in (b"\0\0\1\x40\1", b"no stream at all", bytes(1000)):
        with pytest.raises(FcbenchError):
            video.hevc_decode(data, "gray10le")
        with pytest.raises(FcbenchError):
            video.av1_decode(data, "yuv420p10le")
    stream = video.hevc_encode([np.zeros((16, 16), np.uint8)], "gray", 30)
    with pytest.raises(FcbenchError, match="gray10le"):
        video.hevc_decode(stream, "gray10le")


def test_coders_write_nothing_to_the_terminal(capfd: pytest.CaptureFixture) -> None:
    x = smooth(1, 2)
    for name in ("hevc", "av1"):
        normalized_error(make(name, registry.get("codec", name).sweep("mse")[2]), x)
    with pytest.raises(FcbenchError):
        video.hevc_decode(b"\0\0\1\x26\1 damaged", "gray10le")
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------- vectors and zstd
def test_k_means_finds_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    x = centres.repeat(50, 1) + 0.01 * torch.randn(200, 2, generator=generator)
    codebook = k_means(x, 16, generator)
    assert float((codebook[nearest(x, codebook)] - x).norm(dim=1).max()) < 0.1


def test_pq_gains_over_scalars_where_channels_agree() -> None:
    """Equal channels: vectors of six cost what one scalar costs."""
    x = smooth(4, 1)[:, 2:3].repeat(1, 6, 1, 1)
    flat = x.transpose(0, 1).flatten(1)
    given = FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))
    sizes, errors = [], []
    for dims in (1, 6):
        params = {"dims": dims, "bits": 4}
        codec = registry.get("codec", "pq").build(SPEC, {"s": given}, params)
        codec.prepare([x])
        codec.freeze()
        features = Features({"s": x[:1]})
        stream = codec.encode(features)
        decoded = codec.decode(stream.payload, features.shapes).features.maps["s"]
        sizes.append(len(stream.payload))
        errors.append(float((decoded - x[:1]).square().mean()))
    assert sizes[1] < sizes[0] / 5
    assert errors[1] < 1.3 * errors[0]


def test_pq_before_prepare_is_refused() -> None:
    stats = {"s": FeatureStats(*(torch.full((6,), v) for v in (0.0, 1.0, -1.0, 1.0)))}
    codec = registry.get("codec", "pq").build(SPEC, stats, {"dims": 2, "bits": 2})
    with pytest.raises(FcbenchError, match="prepare"):
        codec.freeze()


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_zstd_on_top_of_raw_changes_bytes_only(dtype: str) -> None:
    x = Features({"s": smooth(1, 2)})
    plain, packed = make("raw", {"dtype": dtype}), make("raw", {"dtype": f"{dtype}_zstd"})
    a, b = plain.encode(x), packed.encode(x)
    assert (a.n_symbols, a.check) == (b.n_symbols, b.check)
    assert len(b.payload) < len(a.payload)
    assert torch.equal(
        plain.decode(a.payload, x.shapes).features.maps["s"], packed.decode(b.payload, x.shapes).features.maps["s"]
    )


def test_zstd_never_gives_more_than_was_asked_for() -> None:
    bomb = zstd.squeeze(bytes(1 << 20), 4)
    with pytest.raises(FcbenchError):
        zstd.expand(bomb, 4, 1000)
    assert zstd.expand(bomb, 4, 1 << 20) == bytes(1 << 20)


# ----------------------------------------------------------------------------------------- VVC
_STREAM = Path(__file__).with_name("vvc_mosaic_qp34.266")
"""A feature mosaic of 128x192, 10 bits, by vvenc 1.15, preset slow, QP 34."""

_DECODED = "156286b1f3751744d75dffe3e1b7cbf6e8c7891e5ff1d9197eef412cc351e8d3"
"""sha256 of its luma as vvdec 3.3 decodes it, uint16 little-endian."""

_FAKE = """#!{python}
import sys
from pathlib import Path
args = sys.argv[1:]
if "--version" in args:
    print("vvencapp: version 9.8.7"); sys.exit()
pairs = dict(zip(args, args[1:]))
assert pairs["--qp"] == "34", "QP " + pairs["--qp"]
assert pairs["--size"] == "192x128" and pairs["--format"] == "yuv420_10"
assert Path(pairs["--input"]).stat().st_size == 3 * 128 * 192, "not one frame of 16-bit 4:2:0"
Path(pairs["--output"]).write_bytes(Path({stream!r}).read_bytes())
"""


@pytest.fixture
def recorded_vvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that gives the recorded stream."""
    path = tmp_path / "vvencapp"
    path.write_text(_FAKE.format(python=sys.executable, stream=str(_STREAM)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    vvc._version.cache_clear()


def test_vvc_is_decoded_bit_for_bit_without_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    luma = vvc.VVC.decode(_STREAM.read_bytes(), (128, 192), vvc.BITS)
    assert luma.shape == (128, 192) and luma.dtype == np.uint16
    assert hashlib.sha256(luma.astype("<u2").tobytes()).hexdigest() == _DECODED


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d[200:]])
def test_a_damaged_vvc_stream_is_one_clear_error(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FcbenchError, match="vvc"):
        vvc.VVC.decode(damage(_STREAM.read_bytes()), (128, 192), vvc.BITS)


@pytest.mark.skipif(os.name == "nt", reason="the encoder that stands in is a script")
def test_vvc_is_encoded_by_the_program_on_the_path(recorded_vvc: None) -> None:
    picture = np.zeros((128, 192), np.uint16)
    assert vvc.VVC.encode(picture, 34, vvc.BITS) == _STREAM.read_bytes()
    versions = registry.get("codec", "vvc").versions()
    assert versions["vvencapp"] == "9.8.7" and "libavcodec" in versions
    with pytest.raises(FcbenchError, match="exit code 1.*QP 13"):
        vvc.VVC.encode(picture, 13, vvc.BITS)


def test_vvc_without_programs_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FcbenchError, match="vvencapp not found"):
        make("vvc", {"qp": 20, "bits": 10})


def test_components_cost_less_than_channels_that_share_what_they_hold() -> None:
    mixing = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))[0]

    def mixed(n: int, seed: int) -> torch.Tensor:
        few = smooth(n, seed) * torch.tensor([1 / 0.1, 1 / 0.3, 0.1, 0, 0, 0])[:, None, None]
        return torch.einsum("dc,nchw->ndhw", mixing, few)

    train, x = mixed(8, 1), mixed(1, 2)
    flat = train.transpose(0, 1).flatten(1)
    given = FeatureStats(flat.mean(1), flat.std(1), flat.amin(1), flat.amax(1))
    found = {}
    for name, qp in (("hevc", 20), ("hevc_klt", 12)):  # components have a wider range: the same step at a lower QP
        codec: Any = registry.get("codec", name).build(SPEC, {"s": given}, {"qp": qp, "bits": 10})
        codec.prepare([train])
        codec.freeze()
        found[name] = len(codec.encode(Features({"s": x})).payload), normalized_error(codec, x).square().mean()
    assert found["hevc_klt"][0] < 0.8 * found["hevc"][0]
    assert found["hevc_klt"][1] < found["hevc"][1]
