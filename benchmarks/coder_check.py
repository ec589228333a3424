"""Do our image coders match other programs? Our JPEG and HEVC intra against Pillow and the program ffmpeg.

    python -m benchmarks.coder_check

Codes the photographs of scikit-image, once with the coders of fcbench, once with Pillow's JPEG and with
ffmpeg's libx265 (``pip install imageio-ffmpeg`` installs the program, which links its own x265 and decoder and
converts colours itself). ``mosaic`` is the coder of the codec ``hevc``: grey pictures of 10 bits, here the luma.
Prints bits per pixel and PSNR [dB, over all channels] of both, means over the photographs.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable

import numpy as np
import skimage.color
import skimage.data
from PIL import Image

from fcbench.coders.video import HEVC
from fcbench.core import registry
from fcbench.core.rates import bpp

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
KNOBS = {"jpeg": (15, 30, 55, 80, 93), "hevc": (41, 37, 33, 28, 22), "mosaic": (42, 36, 30, 24, 18)}

_KNOB = {"jpeg": "quality", "hevc": "qp"}
_X265 = "qp={qp}:keyint=1:ipratio=1:aq-mode=0:psy-rd=0:psy-rdoq=0:info=0:log-level=none"

Coded = tuple[bytes, np.ndarray]
"""A file, and the picture decoded from it."""


def ours(name: str, picture: np.ndarray, knob: int) -> Coded:
    """Code with the image coder of ``--codec image:NAME``, or with that of mosaics."""
    if name == "mosaic":
        data = HEVC.encode(picture, knob, 10)
        return data, HEVC.decode(data, None, 10)
    coder = registry.get("image", name)
    data = coder.encode(picture.transpose(2, 0, 1), {_KNOB[name]: knob})
    return data, np.asarray(coder.decode(data)).transpose(1, 2, 0)


def pillow(picture: np.ndarray, quality: int) -> Coded:
    """Baseline JPEG by Pillow, 4:2:0, with its own Huffman tables."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality, subsampling="4:2:0", optimize=True)
    return file.getvalue(), np.asarray(Image.open(file))


def ffmpeg(picture: np.ndarray, qp: int) -> Coded:
    """HEVC intra by the program ffmpeg: 4:4:4, full-range BT.601, constant QP, preset slow."""
    height, width = picture.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    to_yuv = "scale=out_color_matrix=bt601:out_range=full:flags=accurate_rnd+full_chroma_int,format=yuv444p"
    to_rgb = "scale=in_color_matrix=bt601:in_range=full:flags=accurate_rnd+full_chroma_int,format=rgb24"
    options = ["-c:v", "libx265", "-preset", "slow", "-x265-params", _X265.format(qp=qp), "-f", "hevc"]
    data = _ffmpeg([*raw, "-s", f"{width}x{height}", "-i", "-", "-vf", to_yuv, *options, "-"], picture.tobytes())
    decoded = _ffmpeg(["-f", "hevc", "-i", "-", "-vf", to_rgb, *raw, "-"], data)
    return data, np.frombuffer(decoded, np.uint8).reshape(height, width, 3)


def ffmpeg_grey(picture: np.ndarray, qp: int) -> Coded:
    """HEVC intra by the program ffmpeg: 4:0:0, 10 bits."""
    height, width = picture.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "gray10le"]
    options = ["-c:v", "libx265", "-preset", "slow", "-x265-params", _X265.format(qp=qp), "-f", "hevc"]
    data = _ffmpeg([*raw, "-s", f"{width}x{height}", "-i", "-", *options, "-"], picture.astype("<u2").tobytes())
    decoded = _ffmpeg(["-f", "hevc", "-i", "-", *raw, "-"], data)
    return data, np.frombuffer(decoded, "<u2").reshape(height, width)


OTHERS: dict[str, Callable[[np.ndarray, int], Coded]] = {"jpeg": pillow, "hevc": ffmpeg, "mosaic": ffmpeg_grey}


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def figures(coded: Coded, picture: np.ndarray) -> tuple[float, float]:
    """Bits per pixel and PSNR [dB]."""
    data, decoded = coded
    peak = 1023 if picture.dtype == np.uint16 else 255
    psnr_db = 10 * np.log10(peak**2 / np.square(picture.astype(np.float64) - decoded).mean())
    return bpp(len(data), picture.shape[0] * picture.shape[1]), float(psnr_db)


def photographs(name: str) -> list[np.ndarray]:
    """[H, W, 3] uint8; for the coder of mosaics [H, W] uint16 of 10 bits, sides a multiple of 8."""
    pictures = [getattr(skimage.data, photograph)() for photograph in PHOTOGRAPHS]
    if name != "mosaic":
        return pictures
    cut = [p[: p.shape[0] // 8 * 8, : p.shape[1] // 8 * 8] for p in pictures]
    return [np.rint(skimage.color.rgb2gray(p) * 1023).astype(np.uint16) for p in cut]


def main() -> None:
    print(f"{'coder':6} {'knob':>4}  {'ours: bpp':>9} {'dB':>6}  {'other: bpp':>10} {'dB':>6}")
    for name, knobs in KNOBS.items():
        pictures = photographs(name)
        for knob in knobs:
            own = np.mean([figures(ours(name, p, knob), p) for p in pictures], axis=0)
            other = np.mean([figures(OTHERS[name](p, knob), p) for p in pictures], axis=0)
            print(f"{name:6} {knob:4}  {own[0]:9.3f} {own[1]:6.2f}  {other[0]:10.3f} {other[1]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
