"""Bitstreams and operating points, and what a codec must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    from torch import Tensor

from fcbench.core.features import Features, FeatureSpec, FeatureStats


@dataclass(frozen=True, slots=True)
class Bitstream:
    """One coded sample.

    Attributes:
        parts: named byte strings ("z", "y", ...), in the order in which they stand in the payload.
        n_symbols: entropy-coded integers inside.
        check: 16-bit checksum of those integers: a decoder out of step is an error, never a bad accuracy.
    """

    parts: Mapping[str, bytes]
    n_symbols: int
    check: int

    @property
    def payload(self) -> bytes:
        """All that the decoder gets."""
        return b"".join(self.parts.values())


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of a payload."""

    features: Features
    n_symbols: int
    check: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A codec and its knobs: input, as `RatePoint` is output."""

    codec: str
    params: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``hyperprior(lmbda=0.01)``."""
        inside = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.params.items())
        return f"{self.codec}({inside})" if inside else self.codec


class CodecModule(Protocol):
    """A codec at one operating point; an ``nn.Module`` whose ``state_dict`` is all that its decoder needs."""

    trained: bool  # has parameters to train

    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Take initial values from training features ([B, C, h, w] a map, in the order of the specs)."""

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Differentiable coding of maps ([B, C, h, w]). Returns maps and the estimated bits [B]."""

    def freeze(self) -> None:
        """Make the integer tables, once, after training: from here on only coding."""

    def encode(self, features: Features) -> Bitstream:
        """Code one sample (B = 1). Raises `FcbenchError` for what cannot be coded (NaN, inf, empty)."""

    def decode(self, payload: bytes, shapes: Mapping[str, tuple[int, int]]) -> Decoded:
        """Decode one sample from its payload. Raises `FcbenchError` on a payload that cannot be its own."""


class CodecPlugin(Protocol):
    """``PLUGIN`` of a file in ``fcbench/codecs``.

    Optional attributes: ``variable = True`` where one training serves all operating points (the module then has
    ``at(lmbda)``, which sets the point); ``estimates = False`` where
    its `forward` can only code to know the bits; ``versions() -> dict[str, str]`` of the external coders in use.
    """

    trained: bool

    def sweep(self, objective: Literal["mse", "task", "both"]) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""

    def build(
        self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Mapping[str, float | int | str]
    ) -> CodecModule:
        """Build untrained. Raises `FcbenchError` for parameters it does not know."""
