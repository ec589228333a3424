"""Coding in parallel over samples: each process has its own codecs from the checkpoint, and bytes are the same.

Processes, not threads: a learned codec holds the state of the current sample, and Python's lock most of the time.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from fcbench.core import registry
from fcbench.core.codecs import Bitstream, Decoded, Grids, with_check
from fcbench.core.errors import FcbenchError, is_out_of_memory
from fcbench.core.features import Features
from fcbench.core.processes import died, limit_memory, start_worker, workers
from fcbench.core.python_files import reason_of
from fcbench.transmit.checkpoint import Loaded, load
from fcbench.transmit.container import Record

A = TypeVar("A")
B = TypeVar("B")
Arrays = Mapping[str, np.ndarray]  # Maps passed between processes
Encoded = tuple[Bitstream, float]  # A coded sample with its check, and the encoding time [ms]
WHAT = "code samples"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may take that decodes the bytes of strangers. `files`: plug-in files that it uses."""

    memory_bytes: int  # beyond what it has at its start
    seconds: float  # for a sample, on the clock
    files: tuple[tuple[str, Path], ...] = ()

    @classmethod
    def of(cls, n_scalars: int) -> Limits:
        """Generous ones for samples of so many scalars, with the plug-in files of this process."""
        n_scalars = min(n_scalars, 1 << 28)  # no codec takes more
        return cls((2 << 30) + 64 * n_scalars, 60 + 1e-5 * n_scalars, registry.files_in_use())

    def start(self) -> None:
        """Begin in a fresh process."""
        start_worker()
        for kind, file in self.files:
            registry.use(kind, str(file))
        limit_memory(self.memory_bytes)

    def broken(self) -> FcbenchError:
        """What to say of a process that ended."""
        return FcbenchError(
            "the process that decodes was ended, by the codec's library or by its limits of "
            f"{self.memory_bytes / (1 << 30):.3g} GiB and {self.seconds:.3g} s per sample: the file is damaged or "
            "forged; if you trust it, --trust decodes it without them"
        )


class Coders:
    """Codes samples: in this process, or in several of their own, which start on first use and end with the block.
    `limits`: those of a process of its own that decodes what strangers sent."""

    def __init__(self, n: int = 1, limits: Limits | None = None) -> None:
        self.n, self._limits = n, limits
        self._here = n == 1 and limits is None
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
                stream = result()
            yield features, stream

    def decode(
        self, checkpoint: Path, loaded: Loaded, records: Iterable[Record]
    ) -> Iterator[tuple[Record, tuple[Decoded, float]]]:
        """Each record with what a codec decodes of it, in their order, and the time that it took [ms]."""
        there = partial(_decode, checkpoint, loaded.sha256, self._limits)
        for record, result in self._map(
            lambda r: decoded(loaded, r.payload, r.shapes), there, records, lambda r: (r.payload, dict(r.shapes))
        ):
            with naming(record.where), self._memory():
                coded = result()
            yield record, coded if self._here else _received(*coded)

    def decode_files(
        self, kind: Literal["image", "label"], name: str, records: Iterable[Record]
    ) -> Iterator[tuple[Record, tuple[Any, float]]]:
        """Each record with what an image coder or a task's label coder decodes of it, in their order, and the time that
        it took [ms]."""
        here, there = partial(_decode_file, kind, name, None), partial(_decode_file, kind, name, self._limits)
        for record, result in self._map(lambda r: here(r.payload), there, records, lambda r: (r.payload,)):
            with naming(record.where), self._memory():
                found = result()
            yield record, found

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Say of a process within limits that ran out of memory what is said of one that was ended."""
        try:
            yield
        except Exception as error:
            if self._limits is None or not is_out_of_memory(error):
                raise
            raise self._limits.broken() from error

    def _map(
        self,
        here: Callable[[A], Any],
        there: Callable[..., Any],
        items: Iterable[A],
        sent: Callable[[A], tuple[Any, ...]],
    ) -> Iterator[tuple[A, Callable[[], Any]]]:
        """Items, each with a function that returns its result, in order; a few at a time, to save memory. `here`: of
        an item; `there`: of what is sent of it to another process."""
        if self._here:
            yield from ((item, partial(here, item)) for item in items)
            return
        if self._pool is None:
            start = self._limits.start if self._limits else start_worker
            self._pool = self._open.enter_context(workers(self.n, WHAT, start))
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
            raise (self._limits.broken() if self._limits else died(WHAT)) from exc
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
    checkpoint: Path, sha256: str, limits: Limits | None, payload: bytes, grids: Grids
) -> tuple[Arrays, int, int, float]:
    loaded = _codec(checkpoint, sha256, "receiver")
    with _in_time(limits):
        result, took_ms = decoded(loaded, payload, grids)
    return {k: m.numpy() for k, m in result.features.maps.items()}, result.n_symbols, result.check, took_ms


def _decode_file(kind: str, name: str, limits: Limits | None, payload: bytes) -> tuple[Any, float]:
    """What a plug-in decodes of a file, and the time [ms]."""
    plugin = registry.get(kind, name)
    with _in_time(limits):
        return timed(lambda: plugin.decode(payload))


@contextmanager
def _in_time(limits: Limits | None) -> Iterator[None]:
    """End this process where a sample takes longer than its limits allow."""
    if limits is None or not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)  # its signal ends the process, wherever it is
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _received(maps: Arrays, n_symbols: int, check: int, took_ms: float) -> tuple[Decoded, float]:
    return Decoded(Features({k: torch.from_numpy(m) for k, m in maps.items()}), n_symbols, check), took_ms
