"""Feature mosaics: a map's channels tiled into one picture, through a coder of pictures or of scientific arrays.

    x --clip, normalize--> [C, h, w] --tile--> picture [H, W] --round to levels--> foreign coder --> string

A mosaic's parameters come from the training split, in the checkpoint. A channel is clipped to its training range within
six standard deviations of its mean and divided by its deviation, so that a step is the same error for every channel; or
the normalized channels are first turned into their principal components (`Klt`). Levels are 2**bits over the normalized
ranges of all channels; coders of floats get the normalized picture. Tiles stand in channel order, row after row, in a
picture that is nearly square; unused tiles have the level of the mean, and small pictures are padded with their
edge. See `fcbench.coders.foreign` for the seal and the headers.

Several maps are a picture each, or with the parameter ``pictures="one"`` all in one, as in MPEG's feature coding: one
below the other, in the width of the finest one's mosaic. All share their levels, so that a step is the same error in
every map. (A checkpoint without ``span`` is of a version in which each picture had levels of its own.)

``check`` is that of the decoded integers (of floats their bit patterns), which a lossy coder knows only from decoding:
`encode` leaves it open. The last bit of JPEG 2000, JPEG XL and SPERR may depend on the machine: the check detects it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.codecs.shared.base import CLIP_STD, MAX_POINTS, CodecBase, MapStats
from fcbench.codecs.shared.transforms import klt
from fcbench.coders.foreign import HEAD_BYTES, PictureCoder, pack, seal, unpack, unseal
from fcbench.coders.strings import checksum, coding_numerics
from fcbench.core.codecs import Bitstream, CodecPlugin, Decoded, Grids, Knobs, Objective, number, only, whole_number
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, FeatureStats

PICTURES, ONE = "pictures", "one"  # Parameter of all mosaic codecs, and its value


def columns(channels: int, h: int, w: int) -> int:
    """Columns of the mosaic with the smallest sum of sides; the fewest if several are equal.

    >>> columns(112, 22, 30)
    8
    """
    return min(range(1, channels + 1), key=lambda n: n * w + math.ceil(channels / n) * h)


Shape = tuple[int, int, int]  # (C, h, w)


def width_of(shapes: Sequence[Shape]) -> int:
    """Width of the picture of several maps: that of the first one's mosaic, or of the widest map."""
    channels, h, w = shapes[0]
    return max(columns(channels, h, w) * w, *(w for _, _, w in shapes))


def height_of(shape: Shape, width: int) -> int:
    """Height of a map's rows of tiles in a picture of a width."""
    channels, h, w = shape
    return math.ceil(channels / (width // w)) * h


def tile(maps: Sequence[np.ndarray], fill: float, least_px: int, multiple_px: int) -> np.ndarray:
    """Maps [C, h, w], one below the other, to a picture [H, W]: empty places filled, right and lower edges repeated up
    to the coder's size."""
    shapes = [_shape(m) for m in maps]
    size, width, rows = picture_size(shapes, least_px, multiple_px), width_of(shapes), []
    for (channels, h, w), values in zip(shapes, maps, strict=True):
        n_columns, n_rows = width // w, height_of((channels, h, w), width) // h
        full = np.full((n_rows * n_columns, h, w), fill, values.dtype)
        full[:channels] = values
        grid = full.reshape(n_rows, n_columns, h, w).transpose(0, 2, 1, 3).reshape(n_rows * h, n_columns * w)
        rows.append(np.pad(grid, ((0, 0), (0, width - n_columns * w)), constant_values=fill))
    picture = np.concatenate(rows)
    pads = ((0, size[0] - picture.shape[0]), (0, size[1] - picture.shape[1]))
    return np.pad(picture, pads, mode="edge")


def untile(picture: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Inverse of `tile`: maps [C, h, w], contiguous."""
    width, top, maps = width_of(shapes), 0, []
    for channels, h, w in shapes:
        n_columns, height = width // w, height_of((channels, h, w), width)
        inner = picture[top : top + height, : n_columns * w]
        tiles = inner.reshape(-1, h, n_columns, w).transpose(0, 2, 1, 3)
        maps.append(np.ascontiguousarray(tiles.reshape(-1, h, w)[:channels]))
        top += height
    return maps


def picture_size(shapes: Sequence[Shape], least_px: int, multiple_px: int) -> tuple[int, int]:
    """(H, W) of the picture of maps [C, h, w]. Raises `FcbenchError`: maps of very different forms, for which it would
    be huge."""
    width = width_of(shapes)
    sides = (sum(height_of(shape, width) for shape in shapes), width)
    if len(shapes) > 1 and sides[0] * sides[1] > MAX_POINTS:
        raise FcbenchError(f"maps of {shapes} (channels, height, width) do not fit into one picture")
    height, width = (math.ceil(max(side, least_px) / multiple_px) * multiple_px for side in sides)
    return height, width


def _shape(values: np.ndarray) -> Shape:
    channels, h, w = values.shape
    return channels, h, w


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


def span_of(limits: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Lowest and highest [2] of limits [C, 1, 1]."""
    return torch.stack(
        [torch.stack([low.min() for low, _ in limits]).min(), torch.stack([h.max() for _, h in limits]).max()]
    )


class Levels:
    """Values within limits [C, 1, 1] to levels and back, for the maps of one picture.

    Args:
        span: lowest and highest limit of all pictures, which share their levels; empty: of this picture.
    """

    def __init__(self, limits: Sequence[tuple[Tensor, Tensor]], bits: int | None, span: Tensor) -> None:
        self.limits, self.bits = [(low.numpy(), high.numpy()) for low, high in limits], bits
        low, high = (span if span.any() else span_of(limits)).numpy()
        self.first, width = low, high - low
        steps = (1 << (bits or 1)) - 1
        self.step = np.float32(width / steps if width > 0 else 1)

    @property
    def mean(self) -> float:
        """Level of a normalized 0."""
        return 0.0 if self.bits is None else float(np.rint(-self.first / self.step))

    def forward(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Normalized maps [C, h, w] to the coder's input."""
        clipped = [np.clip(x, low, high) for x, (low, high) in zip(maps, self.limits, strict=True)]
        if self.bits is None:
            return [x.astype(np.float32) for x in clipped]
        kind = np.uint8 if self.bits == 8 else np.uint16
        return [np.rint((x - self.first) / self.step).astype(kind) for x in clipped]

    def backward(self, coded: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The coder's output [C, h, w] to normalized values."""
        maps = [levels.astype(np.float32) for levels in coded]
        if self.bits is not None:
            maps = [x * self.step + self.first for x in maps]
        return [np.clip(x, low, high) for x, (low, high) in zip(maps, self.limits, strict=True)]


class MosaicCodec(CodecBase):
    """``{seal, MAP: string of each picture}``, by a coder at one value of its knob and one depth."""

    foreign = True
    heads: Tensor
    head_sizes: Tensor
    span: Tensor

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        stats: Mapping[str, FeatureStats],
        coder: PictureCoder,
        knob: float,
        bits: int | None,
        components: bool = False,
        one_picture: bool = False,
    ) -> None:
        super().__init__(specs, stats)
        self.klts = nn.ModuleList(Klt(spec.channels) for spec in self.specs if components)
        self._coder, self._knob, self.bits = coder, knob, bits
        every = range(len(self.specs))
        self._pictures = [list(every)] if one_picture else [[i] for i in every]  # the maps of each
        n = len(self._pictures)
        self.register_buffer("heads", torch.zeros(n, HEAD_BYTES, dtype=torch.uint8))
        self.register_buffer("head_sizes", torch.zeros(n, dtype=torch.int32))
        self.register_buffer("span", torch.zeros(2))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}span", torch.zeros(2))  # of a codec with levels for each picture
        super()._load_from_state_dict(state_dict, prefix, *args)

    @coding_numerics()
    def prepare(self, batches: Sequence[Tensor]) -> None:
        firsts = []
        for i, (x, stats) in enumerate(zip(batches, self.map_stats, strict=True)):
            if self.klts:
                self._klt(i).start(stats.normalize(x.float().cpu()))
            firsts.append(x[:1].float().cpu())
        self.span.copy_(span_of(self.limits(range(len(self.specs)))))
        for n, picture in enumerate(self._pictures):
            head = self._write(picture, firsts)[:HEAD_BYTES]
            self.heads[n, : len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
            self.head_sizes[n] = len(head)

    def _starts(self) -> list[bytes]:
        sizes = self.head_sizes.clamp(0, HEAD_BYTES).tolist()
        rows = self.heads.cpu().numpy()
        return [row[:n].tobytes() for row, n in zip(rows, sizes, strict=True)]

    def _klt(self, i: int) -> Klt:
        return cast(Klt, self.klts[i])

    def limits(self, maps: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Ranges [C, 1, 1] that the values of maps are clipped to."""
        return [self._klt(i).limits if self.klts else limits(self.map_stats[i]) for i in maps]

    def levels(self, picture: Sequence[int]) -> Levels:
        """The levels of the maps of a picture."""
        return Levels(self.limits(picture), self.bits, self.span)

    def _write(self, picture: Sequence[int], maps: Sequence[Tensor]) -> bytes:
        """The maps of one picture, of all the maps [1, C, h, w], to a string."""
        levels, normalized = self.levels(picture), [self.map_stats[i].normalize(maps[i]) for i in picture]
        values = [self._klt(i)(x) if self.klts else x for i, x in zip(picture, normalized, strict=True)]
        coded = levels.forward([x[0].numpy() for x in values])
        drawn = tile(coded, levels.mean, self._coder.least_px, self._coder.multiple_px)
        return self._coder.encode(drawn, self._knob, self.bits)

    def _read(
        self, picture: Sequence[int], data: bytes, shapes: Sequence[Shape]
    ) -> tuple[list[np.ndarray], list[Tensor]]:
        """The string of one picture to decoded integers [C, h, w] int32 and features [1, C, h, w] of its maps."""
        size = picture_size(shapes, self._coder.least_px, self._coder.multiple_px)
        drawn = self._coder.decode(data, size, self.bits)
        if drawn.shape != size:
            raise FcbenchError(f"decoded a picture of {list(drawn.shape)}, expected {list(size)}")
        coded = untile(drawn, shapes)
        if self.bits is None and not all(np.isfinite(x).all() for x in coded):
            raise FcbenchError("decoded NaN or inf: the payload is damaged")
        integers = [(x.view(np.int32) if self.bits is None else x).astype(np.int32) for x in coded]
        maps = []
        for i, values in zip(picture, self.levels(picture).backward(coded), strict=True):
            x = torch.from_numpy(values)[None]
            maps.append(self.map_stats[i].restore(self._klt(i).restore(x) if self.klts else x))
        return integers, maps

    def parts(self, name: str) -> tuple[str, ...]:
        """Names of a part of each picture's string."""
        return super().parts(name) if len(self._pictures) == len(self.specs) else (name,)

    @coding_numerics()
    def encode(self, features: Features) -> Bitstream:
        """Code one sample."""
        maps = self.sample(features)
        strings = [self._write(picture, maps) for picture in self._pictures]
        bodies = pack(strings, self._starts())
        parts = {"seal": seal(b"".join(bodies)), **dict(zip(self.parts("picture"), bodies))}
        return Bitstream(parts, sum(x.numel() for x in maps), None)

    @coding_numerics()
    def decode(self, payload: bytes, grids: Grids) -> Decoded:
        """Decode one sample."""
        strings = unpack(unseal(payload), self._starts())
        integers, maps = [], []
        shapes = [(spec.channels, h, w) for spec, (h, w) in zip(self.specs, self.grid(grids), strict=True)]
        for data, picture in zip(strings, self._pictures, strict=True):
            symbols, found = self._read(picture, data, [shapes[i] for i in picture])
            integers += [x.ravel() for x in symbols]
            maps += found
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
        """Check that the knob is in range, ``bits`` if the coder takes levels, and ``pictures`` if it is there."""
        self._value(params)

    def _value(self, params: Knobs) -> float:
        only(params, f"codec {self.name!r}", self.knob, *(["bits"] if self.bits else []), *({PICTURES} & set(params)))
        if params.get(PICTURES, ONE) != ONE:
            raise FcbenchError(
                f"parameter {PICTURES} is {ONE!r}, or left out for a picture per map; got {params[PICTURES]!r}"
            )
        if self.bits and params["bits"] not in self.bits:
            depths = " or ".join(map(str, self.bits))
            raise FcbenchError(f"codec {self.name!r} codes pictures of {depths} bits, got {params['bits']!r}")
        return (whole_number if self.whole else number)(params, self.knob, self.low, self.high)

    def build(self, specs: Sequence[FeatureSpec], stats: Mapping[str, FeatureStats], params: Knobs) -> MosaicCodec:
        value, bits = self._value(params), int(params["bits"]) if self.bits else None
        return MosaicCodec(specs, stats, self.coder, value, bits, self.klt, PICTURES in params)

    def versions(self) -> dict[str, str]:
        return self.coder.versions()
