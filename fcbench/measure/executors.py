"""Execution of a graph's nodes, in this process or in worker processes of this machine."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import torch

from fcbench.core import registry
from fcbench.core.processes import start_worker
from fcbench.core.progress import Event, RelayedReport, Report
from fcbench.measure.graph import Node
from fcbench.measure.study import Study
from fcbench.measure.workshop import Outcome, Setup, Workshop

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Executes nodes.

    Attributes:
        n_at_once: number of nodes that it can execute at a time.
    """

    n_at_once: int

    def submit(self, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
        """Execute a node as `Workshop.do` does, now or later."""


Start = Callable[[Study, Path, bool, Report], AbstractContextManager[Executor]]
"""Starts an executor, given a study, a results folder, whether to keep streams, and a report."""


def setup_of(study: Study, out: Path | None, keep_streams: bool, threads: int | None) -> Setup:
    """Everything another process needs to work on a study."""
    return Setup(
        study.suite,
        study.cache.root,
        str(study.device),
        threads,
        out,
        keep_streams,
        study.coders.n,
        registry.files_in_use(),
    )


# ------------------------------------------------------------------------------------------- this process
class Here:
    """Executes nodes one after the other in this process."""

    n_at_once = 1

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def submit(self, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
        """Execute a node now."""
        done: Future[Outcome] = Future()
        done.set_result(self._workshop.do(node, reasons))
        return done


@contextmanager
def here(study: Study, out: Path, keep_streams: bool, report: Report) -> Iterator[Executor]:
    """Do the work in this process."""
    yield Here(Workshop(study, report, out, keep_streams))


# --------------------------------------------------------------------------------------- worker processes
ATTEMPTS = 3
"""How often a node whose process dies is started."""
DIED = (
    f"its process died {ATTEMPTS} times: out of memory, or a script calls fcbench without "
    '`if __name__ == "__main__":`'
)


class Workers:
    """Executes nodes in processes of this machine, one per process.

    A process that dies is replaced and its node restarted; a training resumes at its last checkpoint.

    Args:
        n: processes.
        threads: of each process; None for an equal share of the cores.
    """

    def __init__(
        self, n: int, threads: int | None, study: Study, out: Path, keep_streams: bool, report: Report
    ) -> None:
        self.n_at_once = n
        self._report, self._here = report, Workshop(study, report, out, keep_streams)
        setup = setup_of(study, out, keep_streams, threads or max(1, (os.cpu_count() or 1) // n))
        self._free = [_Slot(i, replace(setup, device=device_in_turn(study.device, i)), report) for i in range(n)]
        self._slots = tuple(self._free)

    def submit(self, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
        """Execute a node in an idle process."""
        slot, outer = self._free.pop(), Future[Outcome]()
        self._begin(slot, node, reasons, outer, 1)
        return outer

    def close(self) -> None:
        """End all processes, even busy ones."""
        for slot in self._slots:
            slot.close()

    def _begin(self, slot: _Slot, node: Node, reasons: Mapping[str, str], outer: Future[Outcome], attempt: int) -> None:
        try:
            inner = slot.submit(node, reasons)
        except Exception as error:  # BrokenProcessPool: the process died while it was idle
            inner = Future()
            inner.set_exception(error)

        def ended(_: Future[Outcome]) -> None:
            end = partial(self._end, slot, node, reasons, inner, outer, attempt)
            if isinstance(inner.exception(), BrokenProcessPool):
                # this is the pool's own thread: from Python 3.12 on it holds the lock that shutdown needs
                threading.Thread(target=end, daemon=True).start()
            else:
                end()

        inner.add_done_callback(ended)

    def _end(
        self,
        slot: _Slot,
        node: Node,
        reasons: Mapping[str, str],
        inner: Future[Outcome],
        outer: Future[Outcome],
        attempt: int,
    ) -> None:
        """Pass a result on, or restart the node if its process died."""
        error = inner.exception()
        if slot.closed:
            return
        try:
            if isinstance(error, BrokenProcessPool):
                slot.restart()
                if attempt < ATTEMPTS:
                    log.warning("a worker process died at %s: starting it again", node.label)
                    self._begin(slot, node, reasons, outer, attempt + 1)
                    return
            self._free.append(slot)
            if isinstance(error, BrokenProcessPool):
                outer.set_result(self._here.refuse(node, DIED))
            else:
                outer.set_result(inner.result())
        except BaseException as raised:
            outer.set_exception(raised)


class _Slot:
    """A worker process and its messages."""

    def __init__(self, number: int, setup: Setup, report: Report) -> None:
        self._number, self._setup, self._report = number, setup, report
        self.closed = False
        self._start()

    def submit(self, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
        """Execute a node in the process."""
        return self._pool.submit(_do, node, dict(reasons))

    def restart(self) -> None:
        """Replace a dead process."""
        self._pool.shutdown(wait=False)
        self._connection.close()
        self._start()

    def close(self) -> None:
        """Tell the process to end, even if it is busy."""
        self.closed = True
        with suppress(OSError):  # closing alone would not do: a thread here still reads the connection
            self._connection.send(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._pool = ProcessPoolExecutor(1, context, _open, (self._setup, theirs))
        threading.Thread(target=self._listen, args=(self._connection,), daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        with suppress(EOFError, OSError, TypeError):  # TypeError if it is closed between two calls of recv
            while True:
                self._report.follow(self._number, connection.recv())
        self._report.forget(self._number)


@contextmanager
def with_workers(
    study: Study, out: Path, keep_streams: bool, report: Report, *, n: int, threads: int | None = None
) -> Iterator[Executor]:
    """Do the work in `n` processes of this machine."""
    workers = Workers(n, threads, study, out, keep_streams, report)
    try:
        yield workers
    finally:
        workers.close()


def device_in_turn(device: torch.device, number: int) -> str:
    """The GPU of a worker: all GPUs in turn, if no particular one was named."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{number % torch.cuda.device_count()}"
    return str(device)


# ------------------------------------------------------------------------------------ inside of a worker
class _Worker:
    """State of a worker process; its workshop is opened for the first node."""

    def __init__(self, setup: Setup, connection: Connection) -> None:
        self._setup, self._connection, self._lock = setup, connection, threading.Lock()
        self._workshop: Workshop | None = None

    def do(self, node: Node, reasons: Mapping[str, str]) -> Outcome:
        self._workshop = self._workshop or self._setup.open(RelayedReport(self.tell))
        return self._workshop.do(node, reasons)

    def tell(self, event: Event) -> None:
        with self._lock, suppress(OSError):
            self._connection.send(event)

    def await_end(self) -> None:
        """End this process as soon as the other one closes the connection or is gone."""
        with suppress(EOFError, OSError):
            self._connection.recv()
        os._exit(1)


class _Relay(logging.handlers.QueueHandler):
    """Sends log records to the process that shows them."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        super().__init__(queue.SimpleQueue())
        self._tell = tell

    def enqueue(self, record: logging.LogRecord) -> None:
        self._tell(record)


_worker: _Worker | None = None


def _open(setup: Setup, connection: Connection) -> None:
    """Set this process up as a worker."""
    global _worker
    start_worker()
    _worker = _Worker(setup, connection)
    logging.getLogger().addHandler(_Relay(_worker.tell))
    threading.Thread(target=_worker.await_end, name="await-end", daemon=True).start()


def _do(node: Node, reasons: Mapping[str, str]) -> Outcome:
    assert _worker is not None
    return _worker.do(node, reasons)
