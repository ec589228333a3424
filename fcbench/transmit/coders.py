"""Coding in parallel over samples: each process has its own codecs from the checkpoint, and bytes are the same.

Processes, not threads: a learned codec holds the state of the current sample, and Python's lock most of the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from fcbench.core.codecs import Bitstream, Decoded, Grids, with_check
from fcbench.core.errors import FcbenchError, is_out_of_memory
from fcbench.core.features import Features
from fcbench.core.processes import died, workers
from fcbench.core.python_files import reason_of
from fcbench.transmit.checkpoint import Loaded, load
from fcbench.transmit.container import Record

A = TypeVar("A")
B = TypeVar("B")
Arrays = Mapping[str, np.ndarray]  # Maps passed between processes
Encoded = tuple[Bitstream, float]  # A coded sample with its check, and the encoding time [ms]
WHAT = "code samples"


class Coders:
    """Codes samples: in this process or in workers, which start on first use and end with the block."""

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
        """Samples, each with its bitstream, in order. `checkpoint`: of the codec. `loaded`: the same,
        which codes where this process does."""
        here, there = partial(encoded, loaded), partial(_encode, checkpoint, loaded.sha256)
        numbered = self._map(here, there, samples, lambda x: ({k: m.numpy() for k, m in x.maps.items()},))
        for number, (features, result) in enumerate(numbered):
            with naming(f"sample {number} cannot be coded"):
                found = result()
            yield features, found

    def decode(
        self, checkpoint: Path, loaded: Loaded, records: Iterable[Record]
    ) -> Iterator[tuple[Record, tuple[Decoded, float]]]:
        """Records, each with its decoded features and the decoding time [ms], in order."""
        there = partial(_decode, checkpoint, loaded.sha256)
        for record, result in self._map(
            lambda r: decoded(loaded, r.payload, r.shapes), there, records, lambda r: (r.payload, dict(r.shapes))
        ):
            with naming(record.where):
                found = result()
            yield record, found if self.n == 1 else _received(*found)

    def _map(
        self,
        here: Callable[[A], Any],
        there: Callable[..., Any],
        items: Iterable[A],
        sent: Callable[[A], tuple[Any, ...]],
    ) -> Iterator[tuple[A, Callable[[], Any]]]:
        """Items, each with a function that returns its result, in order; a few at a time, to save memory. `here`: of
        an item; `there`: of what is sent of it to another process."""
        if self.n == 1:
            yield from ((item, partial(here, item)) for item in items)
            return
        if self._pool is None:
            self._pool = self._open.enter_context(workers(self.n, WHAT))
        waiting = deque[tuple[A, Future[Any]]]()
        try:
            for item in items:
                waiting.append((item, self._pool.submit(there, *sent(item))))
                if len(waiting) > 2 * self.n:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        except BrokenProcessPool as exc:
            self._pool = None  # others start for the next point
            raise died(WHAT) from exc
        finally:
            for _, result in waiting:
                result.cancel()


def _first(waiting: deque[tuple[A, Future[Any]]]) -> tuple[A, Callable[[], Any]]:
    """The first item, once its result is there. Raises `BrokenProcessPool`: the process died; any other error is
    the result's."""
    item, result = waiting.popleft()
    if isinstance(error := result.exception(), BrokenProcessPool):
        raise error
    return item, result.result


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put file and record, or sample, before a coder's message; for forged data a coder may raise anything."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise FcbenchError(f"{where}: {reason_of(error)}") from error


def encoded(loaded: Loaded, features: Features) -> Encoded:
    """Code a sample."""
    stream, took_ms = timed(lambda: loaded.codec.encode(features))
    return with_check(stream, loaded.codec, features.shapes), took_ms


def decoded(loaded: Loaded, payload: bytes, grids: Grids) -> tuple[Decoded, float]:
    """Decode a sample; also returns the decoding time [ms]."""
    return timed(lambda: loaded.codec.decode(payload, grids))


def timed(call: Callable[[], B]) -> tuple[B, float]:
    """Result of a call, and its time [ms]."""
    began = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - began) * 1e3


HERE = Coders()  # This process alone


@lru_cache(2)
def _codec(checkpoint: Path, sha256: str, side: Literal["sender", "receiver"]) -> Loaded:
    """The codec of one side: the receiver's is a different object from the sender's."""
    torch.set_num_threads(1)
    loaded = load(checkpoint)
    if loaded.sha256 != sha256:
        raise FcbenchError(f"codec checkpoint {checkpoint} changed while it was in use: run again")
    return loaded


def _encode(checkpoint: Path, sha256: str, maps: Arrays) -> Encoded:
    features = Features({k: torch.from_numpy(m) for k, m in maps.items()})
    with torch.inference_mode():
        return encoded(_codec(checkpoint, sha256, "sender"), features)


def _decode(
    checkpoint: Path, sha256: str, payload: bytes, grids: Grids
) -> tuple[Arrays, int, int, Mapping[str, bytes] | None, float]:
    found, took_ms = decoded(_codec(checkpoint, sha256, "receiver"), payload, grids)
    again = found.recode() if found.recode else None
    return {k: m.numpy() for k, m in found.features.maps.items()}, found.n_symbols, found.check, again, took_ms


def _received(
    maps: Arrays, n_symbols: int, check: int, again: Mapping[str, bytes] | None, took_ms: float
) -> tuple[Decoded, float]:
    features = Features({k: torch.from_numpy(m) for k, m in maps.items()})
    return Decoded(features, n_symbols, check, None if again is None else lambda: again), took_ms
