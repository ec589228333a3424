"""Uncoded features: the codec ``raw``, little-endian floats one after another, or zstd on top of them.

fp32 is lossless. fp16 rounds to nearest; values beyond its range (65504) are refused, never clipped or turned into
inf: a figure for "half precision" must not hide a saturated outlier. ``fp16_zstd`` and ``fp32_zstd`` are the same
floats, byte plane by byte plane, through zstd at level 19: what a general compressor saves without knowing features.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fcbench.codecs.shared.base import CodecBase
from fcbench.coders import zstd
from fcbench.coders.strings import checksum, coding_numerics
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded, Grids, Knobs, Objective, only
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats

_FORMATS = {"fp32": ("<f4", "<i4", torch.float32), "fp16": ("<f2", "<i2", torch.float16)}
"""Name -> (numpy format, integers of the same width, torch type)."""

_ZSTD = "_zstd"
_DTYPES = ("fp16" + _ZSTD, "fp16", "fp32" + _ZSTD, "fp32")


class Raw(CodecBase):
    """``{raw: floats of all maps}``; a "symbol" is one float's bit pattern."""

    def __init__(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], dtype: str) -> None:
        super().__init__(specs, stats)
        self.dtype = dtype
        self._floats, self._integers, self._torch = _FORMATS[dtype.removesuffix(_ZSTD)]
        self._squeezed = dtype.endswith(_ZSTD)
        self._n_bytes = np.dtype(self._floats).itemsize

    def _round(self, x: Tensor) -> Tensor:
        """[B, C, h, w] as stored. Raises `FcbenchError`: a value overflows."""
        stored = x.to(self._torch)
        if not bool(torch.isfinite(stored).all()) and bool(torch.isfinite(x).all()):
            raise FcbenchError(
                f"a feature of magnitude {float(x.abs().max()):g} exceeds fp16 (65504): use raw with dtype=fp32"
            )
        return stored

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Maps as stored, and the bits [B] of the payload: without zstd they do not depend on the content."""
        stored = {name: self._round(maps[name]) for name in self.names}
        first = next(iter(stored.values()))
        samples = [[x[b : b + 1] for x in stored.values()] for b in range(first.shape[0])]
        sizes = [len(self._pack(self._bytes(sample))) for sample in samples]
        bits = 8 * torch.tensor(sizes, dtype=torch.float32, device=first.device)
        return {name: x.to(maps[name].dtype) for name, x in stored.items()}, bits

    def estimate_bits(self, maps: dict[str, Tensor]) -> Tensor:
        """Bits [B] of the payloads."""
        return self.forward(maps)[1]

    def _bytes(self, stored: Sequence[Tensor]) -> bytes:
        """Stored maps [1, C, h, w] one after another."""
        arrays = [x.detach().cpu().numpy().astype(self._floats).ravel() for x in stored]
        return np.concatenate(arrays).tobytes()

    def _pack(self, data: bytes) -> bytes:
        return zstd.squeeze(data, self._n_bytes) if self._squeezed else data

    @coding_numerics()
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        data = self._bytes([self._round(x) for x in self.sample(features)])
        integers = np.frombuffer(data, self._integers)
        return Bitstream({"raw": self._pack(data)}, len(integers), checksum(integers))

    @coding_numerics()
    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample."""
        shapes = [(1, s.channels, h, w) for s, (h, w) in zip(self.specs, self.grid(grids), strict=True)]
        sizes = [math.prod(shape) for shape in shapes]
        if self._squeezed:
            payload = zstd.expand(payload, self._n_bytes, sum(sizes) * self._n_bytes)
        if len(payload) != sum(sizes) * self._n_bytes:
            raise FcbenchError(f"raw payload has {len(payload)} bytes, expected {sum(sizes) * self._n_bytes}")
        parts = np.split(np.frombuffer(payload, self._floats).astype(np.float32), np.cumsum(sizes)[:-1])
        maps = [torch.from_numpy(x.reshape(shape).copy()) for x, shape in zip(parts, shapes, strict=True)]
        integers = np.frombuffer(payload, self._integers)
        return Decoded(Features(self.named(maps)), len(integers), checksum(integers))


class _Plugin(CodecPlugin):
    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        return [{"dtype": dtype} for dtype in _DTYPES]

    def check(self, params: Knobs) -> None:
        """``dtype`` alone."""
        only(params, "codec 'raw'", "dtype")
        if params["dtype"] not in _DTYPES:
            raise FcbenchError(f"codec 'raw' takes dtype {', '.join(_DTYPES)}, got {params['dtype']!r}")

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> Raw:
        self.check(params)
        return Raw(specs, stats, str(params["dtype"]))

    def versions(self) -> dict[str, str]:
        return zstd.versions()


PLUGIN = _Plugin()
