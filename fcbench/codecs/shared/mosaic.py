"""Feature mosaics: a map's channels tiled into one picture, through a coder of pictures or of scientific arrays.

    x --clip, normalize--> [C, h, w] --tile--> picture [H, W] --round to levels--> foreign coder --> string

A mosaic's parameters come from the training split, in the checkpoint. A channel is clipped to its training range within
six standard deviations of its mean and divided by its deviation, so that a step is the same error for every channel; or
the normalized channels are first turned into their principal components (`Klt`). Levels are 2**bits over the normalized
ranges of all channels; coders of floats get the normalized picture. Tiles stand in channel order, row after row, in a
picture that is nearly square; unused tiles have the level of the mean, and small pictures are padded with their
edge. See `fcbench.coders.foreign` for the seal and the headers.

``check`` is that of the decoded integers (of floats their bit patterns), which a lossy coder knows only from decoding:
`encode` leaves it open. The last bit of JPEG 2000, JPEG XL and SPERR may depend on the machine: the check detects it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs.shared.base import CLIP_STD, CodecBase, MapStats
from fcbench.codecs.shared.transforms import klt
from fcbench.coders.foreign import HEAD_BYTES, PictureCoder, pack, seal, unpack, unseal
from fcbench.coders.strings import checksum, coding_numerics
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded, Grids, Knobs, Objective, number, only, whole_number
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats


def columns(channels: int, h: int, w: int) -> int:
    """Columns of the mosaic with the smallest sum of sides; the fewest if several are equal.

    >>> columns(112, 22, 30)
    8
    """
    return min(range(1, channels + 1), key=lambda n: n * w + math.ceil(channels / n) * h)


def tile(maps: np.ndarray, fill: float, least_px: int, multiple_px: int) -> np.ndarray:
    """[C, h, w] to a picture [H, W]: empty tiles filled, right and lower edges repeated up to the coder's size."""
    channels, h, w = maps.shape
    n_columns = columns(channels, h, w)
    n_rows = math.ceil(channels / n_columns)
    full = np.full((n_rows * n_columns, h, w), fill, maps.dtype)
    full[:channels] = maps
    grid = full.reshape(n_rows, n_columns, h, w).transpose(0, 2, 1, 3)
    picture = grid.reshape(n_rows * h, n_columns * w)
    height, width = picture_size((channels, h, w), least_px, multiple_px)
    pads = ((0, height - picture.shape[0]), (0, width - picture.shape[1]))
    return np.pad(picture, pads, mode="edge")


def untile(picture: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Inverse of `tile`: [C, h, w], contiguous."""
    channels, h, w = shape
    n_columns = columns(channels, h, w)
    n_rows = math.ceil(channels / n_columns)
    inner = picture[: n_rows * h, : n_columns * w]
    tiles = inner.reshape(n_rows, h, n_columns, w).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, h, w)[:channels])


def picture_size(shape: tuple[int, int, int], least_px: int, multiple_px: int) -> tuple[int, int]:
    """(H, W) of the picture of a map [C, h, w]."""
    channels, h, w = shape
    n_columns = columns(channels, h, w)
    sides = (math.ceil(channels / n_columns) * h, n_columns * w)
    height, width = (math.ceil(max(side, least_px) / multiple_px) * multiple_px for side in sides)
    return height, width


def limits(stats: MapStats) -> tuple[Tensor, Tensor]:
    """Normalized ranges [C, 1, 1] that features are clipped to: the training range within six deviations."""
    low = stats.normalize(stats.low).clamp(-CLIP_STD, 0)
    high = stats.normalize(stats.high).clamp(0, CLIP_STD)
    return low, high


class Klt(nn.Module):
    """Principal components of the normalized channels of one map, by falling variance; orthonormal."""

    rows: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.eye(channels))
        self.register_buffer("std", torch.ones(channels))

    def start(self, x: Tensor) -> None:
        """Start from normalized training features [B, C, h, w]."""
        self.rows.copy_(klt(x)[0])
        self.std.copy_(self.forward(x).square().mean(dim=(0, 2, 3)).sqrt())

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """Ranges [C, 1, 1] that components are clipped to."""
        high = CLIP_STD * self.std[:, None, None]
        return -high, high

    def forward(self, x: Tensor) -> Tensor:
        """Channels [B, C, h, w] to components."""
        return torch.einsum("dc,bchw->bdhw", self.rows, x)

    def restore(self, y: Tensor) -> Tensor:
        """Inverse of `forward`."""
        return torch.einsum("dc,bdhw->bchw", self.rows, y)


class _Levels:
    """Values within limits [C, 1, 1] to levels and back, for one map."""

    def __init__(self, limits: tuple[Tensor, Tensor], bits: int | None) -> None:
        low, high = limits
        self.low, self.high, self.bits = low.numpy(), high.numpy(), bits
        self.first = np.float32(self.low.min())
        width = np.float32(self.high.max()) - self.first
        steps = (1 << (bits or 1)) - 1
        self.step = np.float32(width / steps if width > 0 else 1)

    @property
    def mean(self) -> float:
        """Level of a normalized 0."""
        return 0.0 if self.bits is None else float(np.rint(-self.first / self.step))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Normalized [C, h, w] to the coder's input."""
        x = np.clip(x, self.low, self.high)
        if self.bits is None:
            return x.astype(np.float32)
        levels = np.rint((x - self.first) / self.step)
        return levels.astype(np.uint8 if self.bits == 8 else np.uint16)

    def backward(self, coded: np.ndarray) -> np.ndarray:
        """The coder's output [C, h, w] to normalized values."""
        x = coded.astype(np.float32)
        if self.bits is not None:
            x = x * self.step + self.first
        return np.clip(x, self.low, self.high)


class MosaicCodec(CodecBase):
    """``{seal, MAP: string of each map}``, by a coder at one value of its knob and one depth."""

    foreign = True
    heads: Tensor
    head_sizes: Tensor

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        coder: PictureCoder,
        knob: float,
        bits: int | None,
        components: bool = False,
    ) -> None:
        super().__init__(specs, stats)
        self.klts = nn.ModuleList(Klt(spec.channels) for spec in self.specs if components)
        self._coder, self._knob, self._bits = coder, knob, bits
        n = len(self.specs)
        self.register_buffer("heads", torch.zeros(n, HEAD_BYTES, dtype=torch.uint8))
        self.register_buffer("head_sizes", torch.zeros(n, dtype=torch.int32))

    @coding_numerics()
    def prepare(self, batches: Sequence[Tensor]) -> None:
        for i, (x, stats) in enumerate(zip(batches, self.map_stats, strict=True)):
            if self.klts:
                self._klt(i).start(stats.normalize(x.float().cpu()))
            head = self._write(i, x[:1].float().cpu())[:HEAD_BYTES]
            self.heads[i, : len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
            self.head_sizes[i] = len(head)

    def _starts(self) -> list[bytes]:
        sizes = self.head_sizes.clamp(0, HEAD_BYTES).tolist()
        rows = self.heads.cpu().numpy()
        return [row[:n].tobytes() for row, n in zip(rows, sizes, strict=True)]

    def _klt(self, i: int) -> Klt:
        return cast(Klt, self.klts[i])

    def _levels(self, i: int) -> _Levels:
        return _Levels(self._klt(i).limits if self.klts else limits(self.map_stats[i]), self._bits)

    def _write(self, i: int, x: Tensor) -> bytes:
        """Map i, [1, C, h, w], to a string."""
        levels, normalized = self._levels(i), self.map_stats[i].normalize(x)
        coded = levels.forward((self._klt(i)(normalized) if self.klts else normalized)[0].numpy())
        picture = tile(coded, levels.mean, self._coder.least_px, self._coder.multiple_px)
        return self._coder.encode(picture, self._knob, self._bits)

    def _read(self, i: int, data: bytes, shape: tuple[int, int, int]) -> tuple[np.ndarray, Tensor]:
        """A string of map i to decoded integers [C, h, w] int32 and features [1, C, h, w]."""
        size = picture_size(shape, self._coder.least_px, self._coder.multiple_px)
        picture = self._coder.decode(data, size, self._bits)
        if picture.shape != size:
            raise FcbenchError(f"decoded a picture of {list(picture.shape)}, expected {list(size)}")
        coded = untile(picture, shape)
        if self._bits is None and not np.isfinite(coded).all():
            raise FcbenchError("decoded NaN or inf: the payload is damaged")
        integers = coded.view(np.int32) if self._bits is None else coded
        x = torch.from_numpy(self._levels(i).backward(coded))[None]
        return integers.astype(np.int32), self.map_stats[i].restore(self._klt(i).restore(x) if self.klts else x)

    @coding_numerics()
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        maps = self.sample(features)
        strings = [self._write(i, x) for i, x in enumerate(maps)]
        bodies = pack(strings, self._starts())
        parts = {"seal": seal(b"".join(bodies)), **dict(zip(self.parts("picture"), bodies))}
        return Bitstream(parts, sum(x.numel() for x in maps), None)

    @coding_numerics()
    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample."""
        strings = unpack(unseal(payload), self._starts())
        integers, maps = [], []
        for i, (data, spec, (h, w)) in enumerate(zip(strings, self.specs, self.grid(grids), strict=True)):
            symbols, x = self._read(i, data, (spec.channels, h, w))
            integers.append(symbols.ravel())
            maps.append(x)
        return Decoded(Features(self.named(maps)), sum(i.size for i in integers), checksum(*integers))


@dataclass(frozen=True)
class MosaicPlugin(CodecPlugin):
    """A picture coder with one knob as a codec plug-in."""

    name: str
    knob: str  # parameter that sets the rate, from ``low`` to ``high``; whole numbers if ``whole``
    low: float
    high: float
    values: tuple[float, ...]  # the knob's default sweep, low rate to high
    coder: PictureCoder
    bits: tuple[int, ...] = ()  # bit depths of the coder, the default first; empty for coders of floats
    whole: bool = False
    klt: bool = False  # the picture holds principal components

    def sweep(self, objective: Objective) -> list[dict[str, float | int | str]]:
        depth: dict[str, float | int | str] = {"bits": self.bits[0]} if self.bits else {}
        return [{self.knob: value, **depth} for value in self.values]

    def check(self, params: Knobs) -> None:
        """Check that the knob is in range, and ``bits`` if the coder takes levels."""
        self._value(params)

    def _value(self, params: Knobs) -> float:
        only(params, f"codec {self.name!r}", self.knob, *(["bits"] if self.bits else []))
        if self.bits and params["bits"] not in self.bits:
            depths = " or ".join(map(str, self.bits))
            raise FcbenchError(f"codec {self.name!r} codes pictures of {depths} bits, got {params['bits']!r}")
        return (whole_number if self.whole else number)(params, self.knob, self.low, self.high)

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> MosaicCodec:
        value = self._value(params)
        return MosaicCodec(specs, stats, self.coder, value, int(params["bits"]) if self.bits else None, self.klt)

    def versions(self) -> dict[str, str]:
        return self.coder.versions()
