"""Bitstreams and operating points, and what codecs, image coders and label coders must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from fcbench.core.errors import FcbenchError, nearest
from fcbench.core.features import Features, FeatureSpec, FeatureStats

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Objective = Literal["mse", "levels", "task", "both"]
"""What a learned codec preserves: features; the same, with each map of a pyramid weighted by what its error costs a
task; a task's loss; features and the loss."""
OF_A_TASK: tuple[Objective, ...] = ("levels", "task", "both")
"""Objectives for which every task gets codecs of its own."""
Knobs = Mapping[str, float | int | str]  # Values by name: ``{"lmbda": 0.3}``
Grids = Mapping[str, tuple[int, int]]  # (h, w) of each map


@dataclass(frozen=True, slots=True)
class Bitstream:
    """One coded sample."""

    # named byte strings ("z", "y", ...), in payload order; those that share a code word
    # are cut at the nearest byte
    parts: Mapping[str, bytes]
    n_symbols: int  # number of coded integers
    # 16-bit checksum of those integers, so that a decoder out of step is an error, not a bad accuracy; None if
    # only decoding tells them (see `with_check`)
    check: int | None

    @property
    def payload(self) -> bytes:
        """Everything the decoder gets."""
        return b"".join(self.parts.values())


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of a payload."""

    features: Features
    n_symbols: int
    check: int
    # as of the `Bitstream`, where the codec tells
    parts: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)


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
    """A codec at one operating point: an ``nn.Module`` whose ``state_dict`` is everything its decoder needs."""

    def prepare(self, batches: Sequence[Tensor]) -> None:
        """Take initial values from training features, [B, C, h, w] per map in the order of the specs."""

    def freeze(self) -> None:
        """Finish training or preparation: build the coding tables and switch to eval mode. Called once."""

    def encode(self, features: Features) -> Bitstream:
        """Code one sample (B = 1), and do nothing else: this call is timed. Raises `FcbenchError`: the features cannot
        be coded (NaN, inf, empty, other maps)."""

    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample from its payload and the sizes of its maps. Raises `FcbenchError`: the payload cannot be
        the codec's own, has bytes after its end, or cannot hold maps of these sizes."""


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


@runtime_checkable
class ContinuedCodec(TrainableCodec, Protocol):
    """A codec whose training at one operating point can go on from another point's weights."""

    def continue_from(self, trained: Codec, at: float, to: float, batches: Sequence[Tensor]) -> None:
        """Take the weights of a frozen codec of the same plug-in and specs, and move them to another lmbda. Called in
        place of `prepare`. `at`: lmbda that it was trained at. `to`: this codec's lmbda. `batches`: all training
        features of each map, if they are few; else empty."""


@runtime_checkable
class ForeignCodec(Codec, Protocol):
    """A codec whose strings are read by a library that is not ours: bytes made for it may end the process."""

    foreign: bool


class Program(NamedTuple):
    """A network of a codec as a function of tensors, with arguments to trace it with."""

    module: nn.Module
    example: tuple[Tensor, ...]


@runtime_checkable
class ExportableCodec(Codec, Protocol):
    """A codec whose networks can be exported as programs."""

    def programs(self, grids: Grids) -> dict[str, Program]:
        """Programs by name, for maps of one size. Raises `FcbenchError`: programs cannot express the codec."""

    def through(self, run: Mapping[str, nn.Module]) -> Codec:
        """The codec with its networks and tables replaced by its programs, by name."""


class Coder(Protocol):
    """Base of every plug-in that codes. Explicit subclasses inherit the default."""

    def versions(self) -> dict[str, str]:
        """Versions of the external coders in use. Raises `FcbenchError` where one is missing."""
        return {}


class CodecPlugin(Coder, Protocol):
    """``PLUGIN`` of a codec. Explicit subclasses inherit the defaults."""

    trained: bool = False  # what it builds is a `TrainableCodec`, with the knob ``lmbda``
    variable: bool = False  # what it builds is a `VariableCodec`: one training serves all operating points
    # what it builds is a `ContinuedCodec`: each operating point but the middle one starts from its neighbour's weights
    continued: bool = False
    bases: Sequence[str] = ()  # other codecs whose code it runs: when that changes, what it trained is no longer used

    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        """Default operating points, low rate to high."""

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> Codec:
        """Build an untrained codec. Raises `FcbenchError`: unknown knobs."""


def with_check(stream: Bitstream, codec: Codec, grids: Grids) -> Bitstream:
    """A codec's stream with its check, decoded if the encoder could not know it."""
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

    def header_bytes(self, data: bytes) -> int:
        """Bytes of a coded image that only say how it is coded, such as parameter sets and boxes."""
        return 0


class LabelPlugin(Coder, Protocol):
    """``PLUGIN`` of a label coder, named after its task: codes the task's output losslessly at a stated precision."""

    def output(self, prediction: Any) -> Any:
        """The part of a head's prediction for one image that is coded (`fcbench.core.tasks.Head.predict`, B = 1)."""

    def encode(self, output: Any) -> bytes:
        """Code an output. Raises `FcbenchError`: it cannot be coded."""

    def decode(self, data: bytes) -> Any:
        """Inverse of `encode`. Raises `FcbenchError`: detectable damage."""

    def same(self, decoded: Any, output: Any) -> bool:
        """Whether a decoded output agrees with what was coded, to the stated precision."""


@runtime_checkable
class ChecksKnobs(Protocol):
    """A plug-in that checks knobs before anything is built."""

    def check(self, params: Knobs) -> None:
        """Raise `FcbenchError` for knobs that `build` or `encode` would refuse."""


def only(knobs: Knobs, owner: str, *known: str) -> None:
    """Raise `FcbenchError` unless the knobs are exactly the known ones of their owner, such as "codec 'raw'"."""
    if set(knobs) != set(known):
        got = ", ".join(map(str, knobs)) or "none"
        wrong = next((str(name) for name in knobs if name not in known), "")
        raise FcbenchError(f"{owner} has the parameters {', '.join(known)}; got {got}{nearest(wrong, known)}")


def number(knobs: Knobs, name: str, low: float, high: float) -> float:
    """A number within [low, high]. Raises `FcbenchError` otherwise."""
    value = knobs[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise FcbenchError(f"parameter {name} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def whole_number(knobs: Knobs, name: str, low: float, high: float) -> int:
    """A whole number within [low, high]. Raises `FcbenchError` otherwise."""
    value = number(knobs, name, low, high)
    if value != int(value):
        raise FcbenchError(f"parameter {name} must be a whole number, got {value:g}")
    return int(value)


LABEL = "label"  # Among codecs: the task's own output, coded without loss
IMAGE = "image:"


def codec_kind(name: str) -> tuple[str, str]:
    """Kind of plug-in and its name, from a name in the list of codecs.

    >>> codec_kind("hyperprior"), codec_kind("image:jpeg")
    (('codec', 'hyperprior'), ('image', 'jpeg'))
    """
    if name.startswith(IMAGE):
        return "image", name.removeprefix(IMAGE)
    return "codec", name


class Kind(str, Enum):
    """Kinds of rate points: the column ``kind`` of rates.csv."""

    CEILING = "ceiling"  # uncoded features
    FLOOR = "floor"  # every feature replaced by its training mean
    CODED = "coded"  # coded features
    REMOTE = "remote"  # remote inference: the image coded, and encoded again at the far end
    PUBLISHED = "published"  # stated by others, not measured here; in no rates.csv
    LABEL = "label"  # the task's own output, coded without loss

    def __str__(self) -> str:
        return str(self.value)


ENDS = {Kind.CEILING: OperatingPoint("uncoded"), Kind.FLOOR: OperatingPoint("mean")}  # The ends of a curve
