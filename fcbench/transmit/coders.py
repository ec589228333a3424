"""Coding in parallel over samples: each process has codecs of its own from the checkpoint, and gives the same bytes.

Processes, not threads: a learned codec holds the state of the sample under way and Python's lock most of the time.
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
Arrays = Mapping[str, np.ndarray]  # Maps as they go from process to process
Encoded = tuple[Bitstream, float]  # A coded sample with its check, and the time that it took [ms]
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
        """Each sample with what a codec makes of it, in their order. `checkpoint`: of the codec. `loaded`: the same,
        which codes where this process does."""
        if self.n == 1:
            for number, features in enumerate(samples):
                with naming(_sample(number)):
                    found = encoded(loaded, features)
                yield features, found
        else:
            there = partial(_encode, checkpoint, loaded.sha256)
            numbered = enumerate(samples)
            for (number, features), result in self._map(
                there, numbered, lambda item: {k: m.numpy() for k, m in item[1].maps.items()}
            ):
                with naming(_sample(number)):
                    found = result.result()
                yield features, found

    def decode(
        self, checkpoint: Path, loaded: Loaded, records: Iterable[Record]
    ) -> Iterator[tuple[Record, tuple[Decoded, float]]]:
        """Each record with what a codec decodes of it, in their order, and the time that it took [ms]."""
        if self.n == 1:
            for record in records:
                with naming(record.where):
                    found = decoded(loaded, record.payload, record.shapes)
                yield record, found
        else:
            there = partial(_decode, checkpoint, loaded.sha256)
            for record, result in self._map(there, records, lambda r: (r.payload, dict(r.shapes))):
                with naming(record.where):
                    found = _received(*result.result())
                yield record, found

    def _map(
        self, function: Callable[[Any], B], items: Iterable[A], sent: Callable[[A], Any]
    ) -> Iterator[tuple[A, Future[B]]]:
        """Items with results, in their order; a few of them at a time, so that memory stays flat."""
        if self._pool is None:
            self._pool = self._open.enter_context(workers(self.n, WHAT))
        waiting = deque[tuple[A, Future[B]]]()
        try:
            for item in items:
                waiting.append((item, self._pool.submit(function, sent(item))))
                if len(waiting) > 2 * self.n:
                    first, result = waiting.popleft()
                    _await(result)
                    yield first, result
            while waiting:
                first, result = waiting.popleft()
                _await(result)
                yield first, result
        except BrokenProcessPool as exc:
            self._pool = None  # others start for the next point
            raise died(WHAT) from exc
        finally:
            for _, result in waiting:
                result.cancel()


def _await(result: Future[Any]) -> None:
    """Wait for a result. Raises `BrokenProcessPool` where the process died; any other error is the result's."""
    error = result.exception()
    if isinstance(error, BrokenProcessPool):
        raise error


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put file and record, or sample, before what a coder says, whatever it raises for what was forged."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise FcbenchError(f"{where}: {reason_of(error)}") from error


def _sample(number: int) -> str:
    return f"sample {number} cannot be coded"


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


HERE = Coders()  # This process alone


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


def _decode(checkpoint: Path, sha256: str, sent: tuple[bytes, Grids]) -> tuple[Arrays, int, int, bytes | None, float]:
    found, took_ms = decoded(_codec(checkpoint, sha256, "receiver"), *sent)
    again = found.recode() if found.recode else None
    return {k: m.numpy() for k, m in found.features.maps.items()}, found.n_symbols, found.check, again, took_ms


def _received(maps: Arrays, n_symbols: int, check: int, again: bytes | None, took_ms: float) -> tuple[Decoded, float]:
    features = Features({k: torch.from_numpy(m) for k, m in maps.items()})
    return Decoded(features, n_symbols, check, None if again is None else lambda: again), took_ms
