"""Coding in parallel over samples: each process has codecs of its own from the checkpoint, and gives the same bytes.

Processes, not threads: a learned codec holds the state of the sample under way and Python's lock most of the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from fcbench.core.codecs import Bitstream, Decoded, Grids, with_check
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features
from fcbench.core.processes import died, workers
from fcbench.transmit.checkpoint import Loaded, load
from fcbench.transmit.container import Record

A = TypeVar("A")
B = TypeVar("B")
Arrays = Mapping[str, np.ndarray]
"""Maps as they go from process to process."""
Encoded = tuple[Bitstream, float]
"""A coded sample with its check, and the time that it took [ms]."""
WHAT = "code samples"


class Coders:
    """Codes samples: in this process, or in several of their own, which start on first use and end with the block."""

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self._open = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Coders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool = None
        self._open.close()

    def encode(
        self, checkpoint: Path, loaded: Loaded, samples: Iterable[Features]
    ) -> Iterator[tuple[Features, Encoded]]:
        """Each sample with what a codec makes of it, in their order.

        Args:
            checkpoint: of the codec.
            loaded: the same, which codes where this process does.
        """
        if self.n == 1:
            for features in samples:
                yield features, encoded(loaded, features)
        else:
            there = partial(_encode, checkpoint, loaded.sha256)
            yield from self._map(there, samples, lambda f: {k: m.numpy() for k, m in f.maps.items()})

    def decode(
        self, checkpoint: Path, loaded: Loaded, records: Iterable[Record]
    ) -> Iterator[tuple[Record, tuple[Decoded, float]]]:
        """Each record with what a codec decodes of it, in their order, and the time that it took [ms]."""
        if self.n == 1:
            for record in records:
                yield record, decoded(loaded, record.payload, record.shapes)
        else:
            there = partial(_decode, checkpoint, loaded.sha256)
            for record, (maps, n_symbols, check, took_ms) in self._map(
                there, records, lambda r: (r.payload, dict(r.shapes))
            ):
                found = Features({k: torch.from_numpy(m) for k, m in maps.items()})
                yield record, (Decoded(found, n_symbols, check), took_ms)

    def _map(self, function: Callable[[Any], B], items: Iterable[A], sent: Callable[[A], Any]) -> Iterator[tuple[A, B]]:
        """Items with results, in their order; a few of them at a time, so that memory stays flat."""
        if self._pool is None:
            self._pool = self._open.enter_context(workers(self.n, WHAT))
        waiting = deque[tuple[A, Future[B]]]()
        try:
            for item in items:
                waiting.append((item, self._pool.submit(function, sent(item))))
                if len(waiting) > 2 * self.n:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        except BrokenProcessPool as exc:
            self._pool = None  # others start for the next point
            raise died(WHAT) from exc
        finally:
            for _, result in waiting:
                result.cancel()


def encoded(loaded: Loaded, features: Features) -> Encoded:
    """A sample, coded."""
    stream, took_ms = timed(lambda: loaded.codec.encode(features))
    return with_check(stream, loaded.codec, features.shapes), took_ms


def decoded(loaded: Loaded, payload: bytes, grids: Grids) -> tuple[Decoded, float]:
    """A sample, decoded, and the time that it took [ms]."""
    return timed(lambda: loaded.codec.decode(payload, grids))


def timed(call: Callable[[], B]) -> tuple[B, float]:
    """Result of a call, and how long it took [ms]."""
    began = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - began) * 1e3


HERE = Coders()
"""This process alone."""


# ------------------------------------------------------------------------------------ in a process
@lru_cache(2)
def _codec(checkpoint: Path, sha256: str, side: Literal["sender", "receiver"]) -> Loaded:
    """The codec of one side: the receiver's is another than the sender's."""
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    if loaded.sha256 != sha256:
        raise FcbenchError(f"codec checkpoint {checkpoint} changed while it was in use: run again")
    return loaded


def _encode(checkpoint: Path, sha256: str, maps: Arrays) -> Encoded:
    features = Features({k: torch.from_numpy(m) for k, m in maps.items()})
    with torch.inference_mode():
        return encoded(_codec(checkpoint, sha256, "sender"), features)


def _decode(checkpoint: Path, sha256: str, sent: tuple[bytes, Grids]) -> tuple[Arrays, int, int, float]:
    found, took_ms = decoded(_codec(checkpoint, sha256, "receiver"), *sent)
    return {k: m.numpy() for k, m in found.features.maps.items()}, found.n_symbols, found.check, took_ms
