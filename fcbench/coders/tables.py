"""Table-driven entropy coding of integers, safe on damaged input.

The range coder is `constriction`'s (Rust, bounds-checked); this file turns integer frequency tables into its
models and groups symbols by table; `fcbench.coders.strings` makes byte strings of its output.

Tables have CompressAI's layout: row ``t`` holds ``length[t]`` cumulative counts from 0 to 65536, its
first symbol is the integer ``offset[t]``, and, if ``escape`` is set, its last symbol means "outside the table":
the distance to the table follows at the end of the stage as an Elias-gamma-like code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcbench.coders import escapes
from fcbench.coders.escapes import PRECISION_BITS, exact_model
from fcbench.core.errors import FcbenchError

MAX_SYMBOL = 1 << 24  # Coded integers are smaller than this in magnitude
_TOTAL = 1 << PRECISION_BITS


@dataclass(frozen=True, slots=True)
class Groups:
    """Assignment of symbols to tables: the K tables that code any symbol, in ascending order."""

    used: np.ndarray  # [K] tables; ``tables`` the same as a list
    tables: list[int]
    counts: np.ndarray  # [K] number of symbols of each; ``sizes`` the same as a list
    sizes: list[int]
    starts: np.ndarray  # [K] position of each table's first symbol, in coding order
    # positions sorted by table, stable: of symbols [n], or of pairs of neighbours [n / 2]; None if symbols are in
    # coding order already and all counts are equal
    order: np.ndarray | None = None
    pairs: bool = False

    @classmethod
    @lru_cache(maxsize=64)
    def equal(cls, n_tables: int, n_each: int) -> Groups:
        """``n_each`` symbols per table, in the order of the tables (channel-major latents)."""
        used, counts = np.arange(n_tables), np.full(n_tables, n_each)
        return cls(used, used.tolist(), counts, counts.tolist(), used * n_each)

    @classmethod
    def by_index(cls, indexes: np.ndarray, n_tables: int, *, pairs: bool = False) -> Groups:
        """Symbols coded by the tables ``indexes``: one per symbol [n] or, with ``pairs``, one per pair [n / 2]. Small
        unsigned integers sort fastest, and pairs take half the time."""
        order = indexes.argsort(kind="stable")
        firsts = np.arange(n_tables + 1, dtype=indexes.dtype)
        bounds = indexes.take(order).searchsorted(firsts) << pairs
        starts = bounds[:-1]
        counts = bounds[1:] - starts
        used = counts.nonzero()[0]
        counts = counts[used]
        return cls(used, used.tolist(), counts, counts.tolist(), starts[used], order, pairs)

    def sorted(self, symbols: np.ndarray) -> np.ndarray:
        """Symbols [n] int32 in coding order: [K, n / K] if counts are equal, else [n]."""
        if self.order is None:
            return symbols.reshape(len(self.counts), -1)
        if self.pairs:
            return symbols.view(np.int64).take(self.order).view(np.int32)
        return symbols.take(self.order)

    def unsorted(self, values: np.ndarray) -> np.ndarray:
        """Inverse of `sorted`, [n]."""
        if self.order is None:
            return values.reshape(-1)
        moved = values.view(np.int64) if self.pairs else values
        out = np.empty_like(moved)
        out[self.order] = moved
        return out.view(np.int32)

    def spread(self, of_table: np.ndarray) -> np.ndarray:
        """A number of each table [T] in the shape of `sorted` symbols, or one that broadcasts to it."""
        mine = of_table[self.used]
        return mine[:, None] if self.order is None else mine.repeat(self.counts)

    def below(self, values: np.ndarray, limit: np.ndarray) -> bool:
        """Whether all values, in the shape of `sorted`, are below the limits [T] of their tables."""
        largest = np.maximum.reduceat(values.reshape(-1), self.starts)
        return bool((largest < limit[self.used]).all())

    def runs(self, values: np.ndarray) -> Iterable[np.ndarray]:
        """Each table's run of values in the shape of `sorted`."""
        if self.order is None:
            return values  # rows are cheaper than slices
        starts = self.starts.tolist()
        return [values[a:b] for a, b in zip(starts, [*starts[1:], len(values)])]


def frequencies(shares: np.ndarray) -> np.ndarray:
    """Integer frequencies [L], all positive, with sum 65536, of probabilities [L]."""
    counts = 1 + np.floor(shares * (_TOTAL - len(shares))).astype(np.int64)
    counts[counts.argmax()] += _TOTAL - counts.sum()
    return counts


def cdfs(shares: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Tables of probabilities [L] each: cumulative counts [T, L + 1], zero-padded, and their lengths [T]."""
    rows = [torch.from_numpy(np.append(0, frequencies(p).cumsum())) for p in shares]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


class EntropyTables(nn.Module):
    """Integer tables in buffers, with their coder models cached. Loads tables of any size."""

    cdf: Tensor  # [T, L] int32 cumulative counts, 0 to 65536, zero-padded
    length: Tensor  # [T] int32 entries of each row of ``cdf``
    offset: Tensor  # [T] int32 integer of each row's first symbol
    escape: Tensor  # [] bool, the last symbol of each row means "outside"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cdf", torch.zeros(0, 0, dtype=torch.int32))
        self.register_buffer("length", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("offset", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("escape", torch.tensor(False))

    @property
    def filled(self) -> bool:
        """Tables have been made or loaded."""
        return self.length.numel() > 0

    def fill(self, cdf: Tensor, length: Tensor, offset: Tensor, escape: bool) -> None:
        """Set the tables, once. Raises `FcbenchError`: they are not valid CDFs."""
        self.cdf = cdf.detach().to("cpu", torch.int32).clone()
        self.length = length.detach().to("cpu", torch.int32).clone()
        self.offset = offset.detach().to("cpu", torch.int32).clone()
        self.escape = torch.tensor(escape)
        self.__dict__.pop("coder", None)
        _check_tables(self.cdf.numpy(), self.length.numpy(), self.offset.numpy())

    @cached_property
    def coder(self) -> TableCoder:
        """The tables as coder models. Raises `FcbenchError`: `fill` was not called."""
        self._require()
        return TableCoder(
            self.cdf.cpu().numpy(), self.length.cpu().numpy(), self.offset.cpu().numpy(), bool(self.escape)
        )

    def _require(self) -> None:
        if not self.filled:
            raise FcbenchError("this codec has no entropy tables yet: call prepare() and freeze()")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "coder"}  # coder models cannot be copied

    def bits(self, table: int) -> Tensor:
        """[n] bits of each symbol of a table, from the integer frequencies."""
        self._require()
        cdf = self.cdf[table, : int(self.length[table])]
        return -torch.log2(torch.diff(cdf).double() / _TOTAL)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("cdf", "length", "offset"):
            loaded = state_dict.get(prefix + name)
            if loaded is not None:  # the sizes are only known now
                setattr(self, name, torch.zeros(loaded.shape, dtype=torch.int32))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.__dict__.pop("coder", None)
        if self.filled:
            _check_tables(self.cdf.cpu().numpy(), self.length.cpu().numpy(), self.offset.cpu().numpy())


def _check_tables(cdf: np.ndarray, length: np.ndarray, offset: np.ndarray) -> None:
    """Raise `FcbenchError` unless every row rises strictly from 0 to 65536 over two symbols or more."""
    if cdf.ndim != 2 or length.shape != (len(cdf),) or offset.shape != (len(cdf),) or len(cdf) == 0:
        raise FcbenchError(f"entropy tables do not fit together: shapes {cdf.shape}, {length.shape}, {offset.shape}")
    if length.min() < 3 or length.max() > cdf.shape[1] or np.abs(offset.astype(np.int64)).max() >= MAX_SYMBOL:
        raise FcbenchError("entropy tables have lengths or offsets out of range: make the codec's checkpoint again")
    for row, n in zip(cdf, length, strict=True):
        if row[0] != 0 or row[n - 1] != _TOTAL or (np.diff(row[:n]) <= 0).any():
            raise FcbenchError("an entropy table does not rise from 0 to 65536: make the codec's checkpoint again")


class TableCoder:
    """Coder models of a set of tables. `n_tables`: T. `models`: [T] constriction models."""

    def __init__(self, cdf: np.ndarray, length: np.ndarray, offset: np.ndarray, escape: bool) -> None:
        self.n_tables = len(length)
        self.models = [exact_model(np.diff(row[:n])) for row, n in zip(cdf, length, strict=True)]
        self._offset = offset.astype(np.int32)
        # the last symbol of each row: the escape, if there is one
        self._last = (length - 2).astype(np.int32)
        self._escape = escape
        # values inside a table are below its limit, which is never negative, so that it compares as unsigned too
        self._limit = (self._last + (not escape)).astype(np.uint32)

    def relative(self, symbols: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray | None]:
        """Table-relative values of symbols [n] int32.

        Returns values in the shape of `Groups.sorted`, escapes for symbols outside their table; and the positive
        distances of those, None if there are none. Raises `FcbenchError`: a symbol is 2**24 or more, or outside a table
        without escape.
        """
        if symbols.size == 0:
            raise FcbenchError("no symbols to code: a sample needs at least one feature point")
        values = groups.sorted(symbols) - groups.spread(self._offset)
        return values, self._take_outside(values, groups)

    def encode(self, encoder: Any, symbols: np.ndarray, groups: Groups) -> None:
        """Append symbols [n] int32 to a constriction RangeEncoder. Raises `FcbenchError`: see `relative`."""
        values, distances = self.relative(symbols, groups)
        calls = map(encoder.encode, groups.runs(values), self._models_of(groups))
        deque(calls, maxlen=0)  # runs them, faster than a loop
        if distances is not None:
            escapes.encode(encoder, distances)

    def _models_of(self, groups: Groups) -> list[Any]:
        if len(groups.tables) == self.n_tables:
            return self.models
        return [self.models[table] for table in groups.tables]

    def _take_outside(self, values: np.ndarray, groups: Groups) -> np.ndarray | None:
        """Replace values outside their table by the escape; returns their distances, None if there are none."""
        unsigned = values.view(np.uint32)  # values below a table become huge
        if groups.below(unsigned, self._limit):
            return None
        if not self._escape:
            raise FcbenchError("a symbol lies outside its table, which has no escape")
        last = np.broadcast_to(groups.spread(self._last), values.shape)
        outside = unsigned >= last
        offset = np.broadcast_to(groups.spread(self._offset), values.shape)
        _check_range(values[outside] + offset[outside])  # values inside are in range
        distances = escapes.distance(values[outside], last[outside].astype(np.int64))
        values[outside] = last[outside]
        return distances

    def decode(self, decoder: Any, groups: Groups) -> np.ndarray:
        """Take symbols [n] int32 from a constriction RangeDecoder. Raises `FcbenchError`: the string is damaged (if
        that is detectable)."""
        models = self._models_of(groups)
        try:
            values = np.concatenate(list(map(decoder.decode, models, groups.sizes)))
        except AssertionError as error:
            raise FcbenchError(f"entropy-coded string is damaged: {error}") from None
        if groups.order is None:
            values = values.reshape(len(groups.counts), -1)
        if self._escape:
            self._put_outside(decoder, values, groups)
        values += groups.spread(self._offset)
        return groups.unsorted(values)

    def _put_outside(self, decoder: Any, values: np.ndarray, groups: Groups) -> None:
        if groups.below(values.view(np.uint32), self._limit):
            return
        outside = values == groups.spread(self._last)
        offset = np.broadcast_to(groups.spread(self._offset), values.shape)
        beyond = escapes.decode(decoder, values[outside].astype(np.int64))
        _check_range(beyond + offset[outside])
        values[outside] = beyond


def _check_range(symbols: np.ndarray) -> None:
    if symbols.max() >= MAX_SYMBOL or symbols.min() <= -MAX_SYMBOL:
        raise FcbenchError("a quantized value is 2**24 or more in magnitude: features are out of the trained range")
