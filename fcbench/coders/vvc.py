"""VVC by Fraunhofer's programs ``vvencapp`` and ``vvdecapp``, where they are on the PATH. Imports no torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from fcbench.coders.pictures import PictureCoder, Size
from fcbench.core.errors import FcbenchError

PRESET = "slow"
BITS = 10
_TIMEOUT_S = 600.0


def vvc_binaries() -> tuple[str, str]:
    """Paths of ``vvencapp`` and ``vvdecapp``.

    Raises:
        FcbenchError: one is not on the PATH; the message says which and where to get it.
    """
    paths = [shutil.which(name) for name in ("vvencapp", "vvdecapp")]
    if paths[0] is None or paths[1] is None:
        missing = " and ".join(n for n, p in zip(("vvencapp", "vvdecapp"), paths, strict=True) if p is None)
        raise FcbenchError(f"{missing} not found on the PATH: build github.com/fraunhoferhhi/vvenc and vvdec for VVC")
    return paths[0], paths[1]


def _encode(luma: np.ndarray, qp: float, bits: int | None) -> bytes:
    height, width = luma.shape
    chroma = np.full((2, height // 2, width // 2), 1 << (BITS - 1))
    with tempfile.TemporaryDirectory(prefix="fcbench-vvc-") as folder:
        source, target = Path(folder, "in.yuv"), Path(folder, "out.266")
        source.write_bytes(luma.astype("<u2").tobytes() + chroma.astype("<u2").tobytes())
        program = vvc_binaries()[0]
        options = f"--size {width}x{height} --format yuv420_10 --framerate 1 --frames 1 --qp {int(qp)} --qpa 0".split()
        files = ["--input", str(source), "--output", str(target)]
        _run([program, *files, *options, "--preset", PRESET, "--threads", "1"])
        return _written(target, program)


def _decode(data: bytes, size: Size | None, bits: int | None) -> np.ndarray:
    assert size is not None
    height, width = size
    with tempfile.TemporaryDirectory(prefix="fcbench-vvc-") as folder:
        source, target = Path(folder, "in.266"), Path(folder, "out.yuv")
        source.write_bytes(data)
        program = vvc_binaries()[1]
        _run([program, "-b", str(source), "-o", str(target), "-t", "1"])
        samples = np.frombuffer(_written(target, program), np.uint8)
    if samples.size != 3 * height * width:
        raise FcbenchError(f"vvdecapp wrote {samples.size} bytes, expected one {width}x{height} frame of 16-bit 4:2:0")
    luma = samples[: 2 * height * width].view("<u2").reshape(height, width)
    return luma.astype(np.uint16)


def _run(command: Sequence[str]) -> str:
    """Output of a program. Raises `FcbenchError` unless it exits with 0 in time."""
    name = Path(command[0]).name
    pipes: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(command, timeout=_TIMEOUT_S, check=False, **pipes)
    except subprocess.TimeoutExpired:
        raise FcbenchError(f"{name} ran longer than {_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise FcbenchError(f"{name} cannot be started: {error.strerror}") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = " ".join(text.split())[-200:]
        raise FcbenchError(f"{name} failed with exit code {done.returncode}: {last}")
    return text


def _written(path: Path, program: str) -> bytes:
    data = path.read_bytes() if path.exists() else b""
    if not data:
        raise FcbenchError(f"{Path(program).name} wrote no output")
    return data


@cache
def _version(program: str) -> str:
    text = _run([program, "--version"])
    found = re.search(r"\d+\.\d+\.\d+[\w.-]*", text)
    return found[0] if found else " ".join(text.split())[:80]


def _versions() -> dict[str, str]:
    encoder, decoder = vvc_binaries()
    return {"vvencapp": _version(encoder), "vvdecapp": _version(decoder), "vvenc_preset": PRESET}


VVC = PictureCoder(_encode, _decode, _versions, least_px=64, multiple_px=8)
"""VVC of grey pictures of 10 bits, as 4:2:0 with constant chroma; the knob is the QP."""
