"""Uncoded features: the codec ``raw``, little-endian floats one after another.

fp32 is lossless. fp16 rounds to nearest; values beyond its range (65504) are refused, never clipped or turned into
inf: a figure for "half precision" must not hide a saturated outlier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fcbench.codecs._base import CodecBase, Params, fixed_numerics, only
from fcbench.codecs._strings import checksum
from fcbench.types import (
    Bitstream,
    Decoded,
    FcbenchError,
    Features,
    FeatureSpec,
    FeatureStats,
)

_FORMATS = {
    "fp32": ("<f4", "<i4", torch.float32),
    "fp16": ("<f2", "<i2", torch.float16),
}
"""Name -> (numpy format, integers of the same width, torch type)."""


class Raw(CodecBase):
    """``{raw: floats of all maps}``; a "symbol" is one float's bit pattern."""

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        dtype: str,
    ) -> None:
        super().__init__(specs, stats)
        self.dtype = dtype
        self._floats, self._integers, self._torch = _FORMATS[dtype]
        self._n_bytes = np.dtype(self._floats).itemsize

    def _round(self, x: Tensor) -> Tensor:
        """[B, C, h, w] as stored. Raises `FcbenchError` where it overflows."""
        stored = x.to(self._torch)
        if not bool(torch.isfinite(stored).all()) and bool(torch.isfinite(x).all()):
            raise FcbenchError(
                f"a feature of magnitude {float(x.abs().max()):g} exceeds fp16 (65504): use raw with dtype=fp32"
            )
        return stored

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Maps as stored, and the bits [B], which are the same for any content."""
        stored = {
            name: self._round(maps[name]).to(maps[name].dtype) for name in self.names
        }
        bits = sum(x[0].numel() for x in stored.values()) * self._n_bytes * 8
        first = next(iter(stored.values()))
        return stored, torch.full((first.shape[0],), float(bits), device=first.device)

    @fixed_numerics
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        stored = [
            self._round(x).numpy().astype(self._floats).ravel()
            for x in self.sample(features)
        ]
        payload = np.concatenate(stored).tobytes()
        integers = np.frombuffer(payload, self._integers)
        return Bitstream({"raw": payload}, len(integers), checksum(integers))

    @fixed_numerics
    def decode(self, payload: bytes, shapes: Mapping[str, tuple[int, int]]) -> Decoded:
        """Decode one sample. Raises `FcbenchError` on a payload of another length."""
        grid = self.grid(shapes)
        sizes = [s.channels * h * w for s, (h, w) in zip(self.specs, grid, strict=True)]
        if len(payload) != sum(sizes) * self._n_bytes:
            raise FcbenchError(
                f"raw payload has {len(payload)} bytes, its shapes ask for {sum(sizes) * self._n_bytes}"
            )
        parts = np.split(
            np.frombuffer(payload, self._floats).astype(np.float32),
            np.cumsum(sizes)[:-1],
        )
        maps = [
            torch.from_numpy(x.reshape(1, s.channels, h, w).copy())
            for x, s, (h, w) in zip(parts, self.specs, grid, strict=True)
        ]
        integers = np.frombuffer(payload, self._integers)
        return Decoded(Features(self.named(maps)), len(integers), checksum(integers))


class _Plugin:
    summary = "uncoded features, fp32 or fp16"
    trained = False

    def sweep(
        self, objective: Literal["mse", "task"]
    ) -> list[dict[str, float | int | str]]:
        """Both formats, whatever the objective."""
        return [{"dtype": "fp16"}, {"dtype": "fp32"}]

    def build(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        params: Params,
    ) -> Raw:
        """``dtype``: fp32 or fp16."""
        only(params, "raw", "dtype")
        if params["dtype"] not in _FORMATS:
            raise FcbenchError(f"raw codes dtype fp32 or fp16, not {params['dtype']!r}")
        return Raw(specs, stats, str(params["dtype"]))


PLUGIN = _Plugin()
