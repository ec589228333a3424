"""Frames through a video coder of FFmpeg, by PyAV: elementary streams, no container. Imports no torch.

Constant quantization parameter, intra, one thread, no perceptual tuning; pixel formats are always explicit. FFmpeg's
and SVT-AV1's logs are silenced.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fcbench.coders.foreign import PictureCoder, guarded, library, package_version
from fcbench.core.errors import FcbenchError

PRESET_X265 = "slow"
PRESET_SVT = "4"

X265 = (
    "keyint=1:bframes=0:ipratio=1:aq-mode=0:psy-rd=0:psy-rdoq=0:info={info}:hrd=0:aud=0:repeat-headers=1:"
    "pools=none:frame-threads=1:wpp=0:log-level=none:qp={qp}"
)
"""Options of libx265: one intra frame at a constant QP, squared error minimized."""
_SVT = "rc=0:aq-mode=0:tune=1:avif=1:lp=1"
_PLANES = {"gray": 1, "gray10le": 1, "gray12le": 1}  # Planes of the formats that do not have three


def _av() -> Any:
    av = library("av", "av")
    av.logging.set_level(av.logging.PANIC)
    os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 writes to stderr by itself
    return av


def _depth(pix_fmt: str) -> Any:
    return np.dtype("<u2") if pix_fmt.endswith("le") else np.dtype("u1")


def encode_frames(
    encoder: str, pix_fmt: str, frames: Sequence[Sequence[np.ndarray]], options: Mapping[str, str]
) -> bytes:
    """Code frames of planes [H, W], each of the format's type; chroma planes have the format's size."""
    av = _av()
    height, width = frames[0][0].shape
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.thread_count, context.gop_size = 1, len(frames)
    context.options = dict(options)
    packets = []
    for i, planes in enumerate(frames):
        frame = av.VideoFrame(width, height, pix_fmt)
        for plane, values in zip(frame.planes, planes, strict=True):
            _fill(plane, values, _depth(pix_fmt))
        frame.pts = i
        packets += context.encode(frame)
    data = b"".join(bytes(p) for p in [*packets, *context.encode(None)])
    if not data:
        raise FcbenchError("the encoder returned no bytes")
    return data


def _fill(plane: Any, values: np.ndarray, dtype: Any) -> None:
    rows = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
    rows[:, : values.shape[1]] = values
    plane.update(rows.tobytes())


def _decode_frame(decoder: str, pix_fmt: str, data: bytes) -> list[np.ndarray]:
    """Planes [H, W] of a stream of one frame."""
    frames = decode_packets(decoder, pix_fmt, [_av().Packet(data)])
    if len(frames) != 1:
        raise FcbenchError(f"the stream holds {len(frames) or 'no'} frames, not one of {pix_fmt}")
    return frames[0]


def decode_packets(decoder: str, pix_fmt: str, packets: Sequence[Any]) -> list[list[np.ndarray]]:
    """Frames of planes [H, W] of PyAV's packets."""
    context = _av().CodecContext.create(decoder, "r")
    context.thread_count = 1
    frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    for frame in frames:
        if frame.format.name != pix_fmt:
            raise FcbenchError(f"the stream holds {frame.format.name}, expected {pix_fmt}")
    return [[_plane(p, _depth(pix_fmt)) for p in f.planes[: _PLANES.get(pix_fmt, 3)]] for f in frames]


def _plane(plane: Any, dtype: Any) -> np.ndarray:
    width = plane.line_size // dtype.itemsize
    rows = np.frombuffer(plane, dtype)[: plane.height * width].reshape(plane.height, width)
    return rows[:, : plane.width].copy()


def hevc_encode(planes: Sequence[np.ndarray], pix_fmt: str, qp: int, info: bool = False) -> bytes:
    """An Annex B stream by libx265 at a constant QP, 0 to 51. ``info``: include the encoder's version."""
    options = {"preset": PRESET_X265, "x265-params": X265.format(qp=qp, info=int(info))}
    return guarded("libx265", encode_frames, "libx265", pix_fmt, [planes], options)


def hevc_decode(data: bytes, pix_fmt: str) -> list[np.ndarray]:
    """Inverse of `hevc_encode`, by FFmpeg's own decoder."""
    return guarded("hevc", _decode_frame, "hevc", pix_fmt, data)


def av1_encode(planes: Sequence[np.ndarray], pix_fmt: str, qp: int) -> bytes:
    """An OBU stream by SVT-AV1 at a constant quantizer, 1 to 63, in its still-picture mode."""
    options = {"preset": PRESET_SVT, "qp": str(qp), "svtav1-params": _SVT}
    with _same_scheduling():
        return guarded("libsvtav1", encode_frames, "libsvtav1", pix_fmt, [planes], options)


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """Undo SVT-AV1's change of its caller, as root, into a real-time thread that blocks all others."""
    known = hasattr(os, "sched_getscheduler")
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if known else None
    try:
        yield
    finally:
        if before and os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)


def av1_decode(data: bytes, pix_fmt: str) -> list[np.ndarray]:
    """Inverse of `av1_encode`, by dav1d."""
    return guarded("libdav1d", _decode_frame, "libdav1d", pix_fmt, data)


def vvc_decode(data: bytes, pix_fmt: str) -> list[np.ndarray]:
    """Planes of a VVC stream of one frame, by FFmpeg's own decoder."""
    return guarded("vvc", _decode_frame, "vvc", pix_fmt, data)


def av_versions() -> dict[str, str]:
    """Versions of PyAV and libavcodec."""
    numbers = _av().library_versions["libavcodec"]
    return {**package_version("av"), "libavcodec": ".".join(map(str, numbers))}


@cache
def _x265_version() -> str:
    data = hevc_encode([np.zeros((16, 16), np.uint8)], "gray", 30, info=True)
    match = re.search(rb"x265 \(build (\d+)\) - ([^: ]+)", data)
    if match is None:
        raise FcbenchError("libx265 wrote no version into its stream")
    return f"{match[2].decode()} (build {match[1].decode()})"


def hevc_versions() -> dict[str, str]:
    """Versions of PyAV, libavcodec and libx265 (from a stream's own information), and its preset."""
    return {**av_versions(), "libx265": _x265_version(), "x265_preset": PRESET_X265}


def av1_versions() -> dict[str, str]:
    """Versions of PyAV and libavcodec, and of SVT-AV1 and dav1d if the wheel's file names state them."""
    versions = {**av_versions(), "svtav1_preset": PRESET_SVT}
    folder = Path(_av().__file__).parent.parent / "av.libs"
    for key, stem in (("libsvtav1", "libSvtAv1Enc"), ("libdav1d", "libdav1d")):
        for path in sorted(folder.glob(f"{stem}*.so.*")):
            versions[key] = path.name.partition(".so.")[2]
    return versions


_GREY = {8: "gray", 10: "gray10le"}
_420 = {8: "yuv420p", 10: "yuv420p10le"}


def _av1_encode(picture: np.ndarray, qp: float, bits: int | None) -> bytes:
    height, width = picture.shape
    chroma = np.full((height // 2, width // 2), 1 << ((bits or 8) - 1), picture.dtype)
    return av1_encode([picture, chroma, chroma], _420[bits or 8], int(qp))


HEVC = PictureCoder(
    lambda picture, qp, bits: hevc_encode([picture], _GREY[bits or 8], int(qp)),
    lambda data, size, bits: hevc_decode(data, _GREY[bits or 8])[0],
    hevc_versions,
    least_px=16,
    multiple_px=8,
)
"""HEVC intra of grey pictures (4:0:0) of 8 or 10 bits; the knob is the QP."""

AV1 = PictureCoder(_av1_encode, lambda data, size, bits: av1_decode(data, _420[bits or 8])[0], av1_versions, 16, 8)
"""AV1 of grey pictures of 8 or 10 bits, as 4:2:0 with constant chroma; the knob is the quantizer."""
