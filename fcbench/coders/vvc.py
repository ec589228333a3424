"""VVC: encoded by Fraunhofer's program ``vvencapp`` if it is on the PATH, decoded by PyAV. Imports no torch."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import numpy as np

from fcbench.coders.foreign import PictureCoder
from fcbench.coders.video import av_versions, vvc_decode
from fcbench.core.errors import FcbenchError

PRESET = "slow"
BITS = 10
_TIMEOUT_S = 600.0


def vvc_encoder() -> str:
    """Path of ``vvencapp``. Raises `FcbenchError`: it is not on the PATH; the message says where to get it."""
    path = shutil.which("vvencapp")
    if path is None:
        raise FcbenchError("vvencapp not found on the PATH: build github.com/fraunhoferhhi/vvenc to encode VVC")
    return path


def _encode(luma: np.ndarray, qp: float, bits: int | None) -> bytes:
    height, width = luma.shape
    chroma = np.full((2, height // 2, width // 2), 1 << (BITS - 1))
    with tempfile.TemporaryDirectory(prefix="fcbench-vvc-") as folder:
        source, target = Path(folder, "in.yuv"), Path(folder, "out.266")
        source.write_bytes(luma.astype("<u2").tobytes() + chroma.astype("<u2").tobytes())
        program = vvc_encoder()
        options = f"--size {width}x{height} --format yuv420_10 --framerate 1 --frames 1 --qp {int(qp)} --qpa 0".split()
        files = ["--input", str(source), "--output", str(target)]
        _run([program, *files, *options, "--preset", PRESET, "--threads", "1"])
        if not (data := target.read_bytes() if target.exists() else b""):
            raise FcbenchError(f"{Path(program).name} wrote no output")
        return data


def _run(command: Sequence[str]) -> str:
    """Output of a program. Raises `FcbenchError`: it fails, or takes too long."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise FcbenchError(f"{name} ran longer than {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise FcbenchError(f"{name} cannot be started: {error.strerror}") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = " ".join(text.split())[-200:]
        raise FcbenchError(f"{name} failed with exit code {done.returncode}: {last}")
    return text


@cache
def _version(program: str) -> str:
    text = _run([program, "--version"])
    match = re.search(r"\d+\.\d+\.\d+[\w.-]*", text)
    return match[0] if match else " ".join(text.split())[:80]


def _versions() -> dict[str, str]:
    return {**av_versions(), "vvencapp": _version(vvc_encoder()), "vvenc_preset": PRESET}


VVC = PictureCoder(_encode, lambda data, size, bits: vvc_decode(data, "yuv420p10le")[0], _versions, 64, 8)
"""VVC of grey pictures of 10 bits, as 4:2:0 with constant chroma; the knob is the QP."""
