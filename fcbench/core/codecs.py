"""Bitstreams and operating points, and what codecs, image coders and label coders must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from fcbench.core.features import Features, FeatureSpec, FeatureStats
from fcbench.core.knobs import Knobs

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    import numpy as np
    from torch import Tensor, nn

    from fcbench.core.kinds import Objective

Grids = Mapping[str, tuple[int, int]]  # (h, w) of each map


@dataclass(frozen=True, slots=True)
class Bitstream:
    """One coded sample."""

    parts: Mapping[str, bytes]  # named byte strings ("z", "y", ...), in the order in which they stand in the payload
    n_symbols: int  # coded integers inside
    # 16-bit checksum of those integers, so that a decoder out of step is an error and never a bad accuracy; None where
    # only decoding tells them (see `with_check`)
    check: int | None

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
    # codes the decoded integers again, to the one payload that holds them, so that surplus bytes are seen; None where
    # `Codec.decode` itself refuses them. Not called while decoding is timed.
    recode: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A codec and its knobs."""

    codec: str
    params: Knobs = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``hyperprior(lmbda=0.01)``."""
        inside = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.params.items())
        return f"{self.codec}({inside})" if inside else self.codec


class Codec(Protocol):
    """A codec at one operating point: an ``nn.Module`` whose ``state_dict`` is all that its decoder needs."""

    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Take initial values from training features, [B, C, h, w] per map in the order of the specs."""

    def freeze(self) -> None:
        """Finish training or preparation: make the tables for coding and switch to eval mode. Called once."""

    def encode(self, features: Features) -> Bitstream:
        """Code one sample (B = 1), and do nothing else: this call is timed. Raises `FcbenchError`: the features cannot
        be coded (NaN, inf, empty, other maps)."""

    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample from its payload and the sizes of its maps. Raises `FcbenchError`: the payload cannot be
        the codec's own."""


@runtime_checkable
class EstimatingCodec(Codec, Protocol):
    """A codec that knows the bits of a sample without coding it to a file."""

    def estimate_bits(self, maps: dict[str, Tensor]) -> Tensor:
        """Estimated bits [B] of maps [B, C, h, w]."""


class TrainableCodec(EstimatingCodec, Protocol):
    """A codec that is trained on ``bits per scalar + lmbda * distortion``."""

    def forward(self, maps: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Code maps [B, C, h, w] differentiably. Returns the decoded maps and the estimated bits [B]."""


@runtime_checkable
class VariableCodec(TrainableCodec, Protocol):
    """A codec whose operating point can be moved: in training at every step, afterwards before `freeze`."""

    def at(self, lmbda: float) -> None:
        """Set the operating point: weight of the distortion against bits per scalar."""


class Program(NamedTuple):
    """A network of a codec as a function of tensors, with arguments to trace it with."""

    module: nn.Module
    example: tuple[Tensor, ...]


@runtime_checkable
class ExportableCodec(Codec, Protocol):
    """A codec whose networks can leave it as programs."""

    def programs(self, grids: Grids) -> dict[str, Program]:
        """Programs by name, for maps of one size. Raises `FcbenchError` where the codec is more than they can say."""

    def through(self, run: Mapping[str, nn.Module]) -> Codec:
        """The codec with its programs, by name, in the place of its networks and tables."""


class Coder(Protocol):
    """What every plug-in that codes tells. Explicit subclasses inherit the default."""

    def versions(self) -> dict[str, str]:
        """Versions of the external coders in use. Raises `FcbenchError` where one is missing."""
        return {}


class CodecPlugin(Coder, Protocol):
    """``PLUGIN`` of a codec. Explicit subclasses inherit the defaults."""

    trained: bool = False  # what it builds is a `TrainableCodec`, with the knob ``lmbda``
    variable: bool = False  # what it builds is a `VariableCodec`: one training serves all operating points

    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> Codec:
        """Build untrained. Raises `FcbenchError` for knobs it does not know."""


def with_check(stream: Bitstream, codec: Codec, grids: Grids) -> Bitstream:
    """A codec's stream with its check: decoded for it where the encoder could not know it."""
    return stream if stream.check is not None else replace(stream, check=codec.decode(stream.payload, grids).check)


class ImagePlugin(Coder, Protocol):
    """``PLUGIN`` of an image coder, for remote inference."""

    def sweep(self) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""

    def encode(self, image: Any, params: Knobs) -> bytes:
        """Code an image, uint8 [3, H, W], numpy or torch. Raises `FcbenchError`: another type or shape, unknown knobs,
        or the coder fails."""

    def decode(self, data: bytes) -> np.ndarray:
        """uint8 [3, H, W] of a file. Raises `FcbenchError` where it is damaged."""


class LabelPlugin(Coder, Protocol):
    """``PLUGIN`` of a label coder, named after its task: the task's own output, lossless at a stated precision."""

    def output(self, prediction: Any) -> Any:
        """What is coded of a head's prediction for one image (`fcbench.core.tasks.Head.predict`, B = 1)."""

    def encode(self, output: Any) -> bytes:
        """Code an output. Raises `FcbenchError` where it cannot be coded."""

    def decode(self, data: bytes) -> Any:
        """Inverse of `encode`. Raises `FcbenchError` on damage that can be seen."""

    def same(self, decoded: Any, output: Any) -> bool:
        """Whether a decoded output agrees with what was coded, to the stated precision."""
