"""Feature mosaics: geometry, levels, headers, seals."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcbench.codecs.shared import mosaic
from fcbench.codecs.shared.base import MapStats
from fcbench.coders import foreign, stills, video
from fcbench.coders.foreign import PictureCoder
from fcbench.core import registry
from fcbench.core.codecs import EstimatingCodec, with_check
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.testing.maps import correlated, statistics

SIZES = st.integers(1, 9)


def stats(low: list[float], high: list[float], std: list[float]) -> FeatureStats:
    mean = torch.zeros(len(low))
    return FeatureStats(mean, torch.tensor(std), torch.tensor(low), torch.tensor(high))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), SIZES, SIZES, st.integers(1, 20), st.sampled_from([1, 2, 8]))
def test_tiles_survive_at_any_size(channels: int, h: int, w: int, least: int, multiple: int) -> None:
    maps = np.arange(channels * h * w, dtype=np.uint16).reshape(channels, h, w)
    picture = mosaic.tile([maps], 9999, least, multiple)
    shape = (channels, h, w)
    assert picture.shape == mosaic.picture_size([shape], least, multiple)
    assert min(picture.shape) >= least
    assert all(side % multiple == 0 for side in picture.shape)
    assert np.array_equal(mosaic.untile(picture, [shape])[0], maps)


def test_the_layout_of_a_mosaic() -> None:
    maps = np.arange(5, dtype=np.uint8)[:, None, None].repeat(1, 1).repeat(2, 2)
    picture = mosaic.tile([maps], 77, 1, 1)
    expected = [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]]
    assert mosaic.columns(5, 1, 2) == 1 and picture.tolist() == expected
    assert mosaic.tile([maps[:, :, :1]], 77, 1, 1).tolist() == [[0, 1], [2, 3], [4, 77]]
    assert mosaic.tile([maps[:1]], 0, 3, 2).shape == (4, 4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 20), SIZES, SIZES), min_size=1, max_size=4), st.sampled_from([1, 8]))
def test_maps_survive_in_one_picture(shapes: list[tuple[int, int, int]], multiple: int) -> None:
    maps = [np.arange(np.prod(s), dtype=np.uint16).reshape(s) + 100 * i for i, s in enumerate(shapes)]
    picture = mosaic.tile(maps, 9999, 1, multiple)
    assert picture.shape == mosaic.picture_size(shapes, 1, multiple)
    assert all(np.array_equal(a, b) for a, b in zip(mosaic.untile(picture, shapes), maps, strict=True))


def test_a_pyramid_fills_one_picture_without_a_gap() -> None:
    """As in MPEG's packing: 16 x 16 tiles of P2, below them 32 x 8 of P3, 64 x 4 of P4, 128 x 2 of P5."""
    shapes = [(256, 32 >> i, 32 >> i) for i in range(4)]
    height, width = mosaic.picture_size(shapes, 1, 1)
    columns = [width // w for _, _, w in shapes]
    assert columns == [16, 32, 64, 128] and height * width == sum(c * h * w for c, h, w in shapes)


def test_maps_that_make_a_huge_picture_are_refused() -> None:
    with pytest.raises(FcbenchError, match="do not fit into one picture"):
        mosaic.picture_size([(4, 1, 1 << 20), (4, 1 << 20, 1)], 1, 1)


@pytest.mark.parametrize("channels", [1, 7, 112, 113, 256])
def test_mosaics_are_nearly_square(channels: int) -> None:
    height, width = mosaic.picture_size([(channels, 22, 30)], 1, 1)
    assert height + width <= 2 * math.sqrt(channels * 22 * 30) + 2 * (22 + 30)


def test_levels_clip_at_six_deviations_and_share_the_mean() -> None:
    given_stats = stats([-100.0, -1.0, 0.0], [100.0, 2.0, 0.0], [1.0, 1.0, 1.0])
    levels = mosaic.Levels([mosaic.limits(MapStats(given_stats, FeatureSpec("s", 3, 1)))], 10, torch.zeros(2))
    x = np.array([-50, -6, 0, 1.5, 6, 50], np.float32) * np.ones((3, 1, 1), np.float32)
    coded = levels.forward([x])[0]
    assert coded.dtype == np.uint16 and (coded.min(), coded.max()) == (0, 1023)
    assert coded[0, 0].tolist() == [0, 0, 512, 639, 1023, 1023]
    assert (coded[2] == levels.mean).all() and len(set(coded[:, 0, 2])) == 1
    back = levels.backward([coded])[0]
    limits = np.array([[[-6, 6]], [[-1, 2]], [[0, 0]]])
    clipped = np.clip(x, limits[..., :1], limits[..., 1:])
    assert np.abs(back - clipped).max() <= 12 / 1023 / 2 + 1e-5
    assert (back[2] == 0).all()


def test_a_map_in_which_nothing_varies() -> None:
    flat = MapStats(stats([0.0], [0.0], [1.0]), FeatureSpec("s", 1, 1))
    for bits in (8, 10, None):
        levels = mosaic.Levels([mosaic.limits(flat)], bits, torch.zeros(2))
        assert levels.backward(levels.forward([np.full((1, 2, 2), 3.0)]))[0].tolist() == [[[0, 0], [0, 0]]]


def test_floats_pass_as_they_are() -> None:
    given_stats = MapStats(stats([-9.0], [9.0], [2.0]), FeatureSpec("s", 1, 1))
    x = np.array([[[-4.4, 0.125, 4.6]]], np.float32)
    levels = mosaic.Levels([mosaic.limits(given_stats)], None, torch.zeros(2))
    assert np.allclose(levels.forward([x])[0], np.clip(x, -4.5, 4.5))


# -------------------------------------------------------------------------------- payloads
@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), min_size=1))
def test_strings_survive_packing(pairs: list[tuple[bytes, bytes]]) -> None:
    strings, heads = [s for s, _ in pairs], [h for _, h in pairs]
    data = b"".join(foreign.pack(strings, heads))
    assert foreign.unpack(data, heads) == strings


def test_what_strings_share_with_the_head_is_not_sent() -> None:
    head = bytes(range(100))
    data = b"".join(foreign.pack([head[:80] + b"xyz"], [head]))
    assert data == bytes([80]) + b"xyz"
    with pytest.raises(FcbenchError, match="another checkpoint"):
        foreign.unpack(data, [head[:10]])


def test_seals_find_flips_and_cuts() -> None:
    data = bytes(range(50))
    sealed = foreign.seal(data) + data
    assert foreign.unseal(sealed) == data
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FcbenchError, match="seal"):
            foreign.unseal(bytes(flipped))
    for n in range(3):
        with pytest.raises(FcbenchError, match="seal"):
            foreign.unseal(sealed[:n])


def test_foreign_errors_become_one_line() -> None:
    def fail() -> None:
        raise KeyError("first\nsecond")

    with pytest.raises(FcbenchError, match="coder failed: ") as caught:
        foreign.guarded("coder", fail)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------- the codec
class _Counting:
    """A coder that stores pictures, and counts."""

    def __init__(self) -> None:
        self.n_encoded = self.n_decoded = 0

    def encode(self, picture: np.ndarray, knob: float, bits: int | None) -> bytes:
        self.n_encoded += 1
        return b"HEADER" + picture.astype("<u2").tobytes()

    def decode(self, data: bytes, size: tuple[int, int] | None, bits: int | None) -> np.ndarray:
        self.n_decoded += 1
        assert data.startswith(b"HEADER")
        return np.frombuffer(data[6:], "<u2").reshape(size or -1)


def build() -> tuple[mosaic.MosaicCodec, _Counting]:
    counting = _Counting()
    coder = PictureCoder(counting.encode, counting.decode, dict)
    given_stats = {"s": stats([-2.0] * 3, [2.0] * 3, [1.0] * 3)}
    codec = mosaic.MosaicCodec((FeatureSpec("s", 3, 1),), given_stats, coder, 30.0, 10)
    codec.prepare([torch.full((1, 3, 2, 2), -2.0)])
    return codec, counting


def test_the_first_training_string_saves_headers() -> None:
    codec, _ = build()
    x = Features({"s": torch.full((1, 3, 2, 2), 1.0)})
    stream = codec.encode(x)
    assert len(stream.payload) == 2 + 1 + 2 * 12  # seal, shared bytes, samples
    assert stream.n_symbols == 12
    decoded = codec.decode(stream.payload, x.shapes).features.maps["s"]
    assert torch.allclose(decoded, x.maps["s"], atol=2 / 1023)


def test_encoding_decodes_nothing_and_the_check_is_what_decoding_gives() -> None:
    codec, counting = build()
    x = Features({"s": torch.rand(1, 3, 2, 2)})
    before = counting.n_encoded
    stream = codec.encode(x)
    assert (counting.n_encoded, counting.n_decoded, stream.check) == (before + 1, 0, None)
    complete = with_check(stream, codec, x.shapes)
    decoded = codec.decode(stream.payload, x.shapes)
    assert (complete.n_symbols, complete.check) == (decoded.n_symbols, decoded.check)
    assert with_check(complete, codec, x.shapes) is complete
    assert not isinstance(codec, EstimatingCodec)


def test_pictures_of_another_size_are_refused() -> None:
    codec, _ = build()
    x = Features({"s": torch.zeros(1, 3, 2, 2)})
    payload = codec.encode(x).payload
    with pytest.raises((FcbenchError, ValueError)):
        codec.decode(payload, {"s": (3, 3)})


FINE, COARSE = FeatureSpec("fine", 6, 4), FeatureSpec("coarse", 9, 8)


@pytest.mark.parametrize(
    "name", [n for n in registry.names("codec") if isinstance(registry.get("codec", n), mosaic.MosaicPlugin)]
)
def test_every_mosaic_codec_codes_a_pyramid_in_one_picture(name: str) -> None:
    plugin: Any = registry.get("codec", name)
    try:
        plugin.versions()
    except FcbenchError as error:
        pytest.skip(str(error))
    drawn = {"fine": 5 + 2 * correlated(4, 6, (16, 24), 1), "coarse": correlated(4, 9, (8, 12), 2)}
    given_stats = {n: statistics(x) for n, x in drawn.items()}
    sent = Features({n: x[:1] for n, x in drawn.items()})
    found = {}
    for more in ({}, {"pictures": "one"}):
        codec = plugin.build((FINE, COARSE), given_stats, {**plugin.sweep("mse")[-1], **more})
        codec.prepare(list(drawn.values()))
        stream = codec.encode(sent)
        again = plugin.build((FINE, COARSE), given_stats, {**plugin.sweep("mse")[-1], **more})
        again.load_state_dict(codec.state_dict())
        decoded = again.decode(stream.payload, sent.shapes)
        found[len(more)] = list(stream.parts), decoded.n_symbols
        for n, x in sent.maps.items():
            apart = (decoded.features.maps[n] - x) / drawn[n].std((0, 2, 3), keepdim=True)
            assert float(apart.square().mean()) < 0.1, (n, more)
    assert found[0] == (["seal", "picture of fine", "picture of coarse"], found[1][1])
    assert found[1][0] == ["seal", "picture"]
    with pytest.raises(FcbenchError, match="pictures is 'one', or left out.*got 'two'"):
        plugin.check({**plugin.sweep("mse")[-1], "pictures": "two"})


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux alone")
def test_a_coder_leaves_the_process_its_scheduling() -> None:
    """SVT-AV1 makes its caller a real-time thread where it may (as root in a container)."""
    before = os.sched_getscheduler(0)
    planes = [np.zeros((64, 64), np.uint8)] + 2 * [np.full((32, 32), 128, np.uint8)]
    assert video.av1_encode(planes, "yuv420p", 30)
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("start", [b"\x2a\x10\xf3\x42\xf3\x00\x00\x09\x09", b"\x37" + bytes(8)], ids=["later", "3.1"])
def test_a_string_of_another_sz3_is_refused_and_ends_no_process(start: bytes) -> None:
    data = stills.SZ3.encode(np.zeros((8, 8), np.float32), 0.1, None)
    if stills._sz3_format(start) == stills._sz3_format(data):
        pytest.skip("this is the format of the SZ3 here")
    with pytest.raises(FcbenchError, match="another format than sz3"):
        stills.SZ3.decode(start + data[9:], (8, 8), None)
