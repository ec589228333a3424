"""Floats through zstd: planes of bytes, one frame without magic, sizes and checksum. Imports no torch."""

from typing import Any

import numpy as np

from fcbench.coders.foreign import guarded, library, package_version
from fcbench.core.errors import FcbenchError

_LEVEL = 19


def _zstd() -> Any:
    return library("zstandard", "zstandard")


def squeeze(data: bytes, width: int) -> bytes:
    """Floats of a width [bytes], all their lowest bytes first, ..., all their highest ones last, as one zstd frame."""
    zstd = _zstd()
    options = zstd.ZstdCompressionParameters.from_level(
        _LEVEL, format=zstd.FORMAT_ZSTD1_MAGICLESS, write_content_size=False, write_checksum=False, write_dict_id=False
    )
    planes = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
    return bytes(zstd.ZstdCompressor(compression_params=options).compress(planes))


def expand(data: bytes, width: int, n_bytes: int) -> bytes:
    """Inverse of `squeeze`, to a number of bytes. Raises `FcbenchError`: detectable damage."""
    zstd = _zstd()
    reader = zstd.ZstdDecompressor(format=zstd.FORMAT_ZSTD1_MAGICLESS)
    planes = guarded("zstd", reader.decompress, data, max_output_size=n_bytes, allow_extra_data=False)
    if len(planes) != n_bytes:
        raise FcbenchError(f"zstd gave {len(planes)} bytes, the shapes need {n_bytes}: the payload is damaged")
    return np.frombuffer(planes, np.uint8).reshape(width, -1).T.tobytes()


def versions() -> dict[str, str]:
    """Versions of the binding and of zstd."""
    numbers = _zstd().ZSTD_VERSION
    return {**package_version("zstandard"), "zstd": ".".join(map(str, numbers))}
