"""Cases in forked processes with limits of memory and time, many to a process."""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from benchmarks.fuzz.cases import Outcome
from fcbench.core.errors import FcbenchError, is_out_of_memory
from fcbench.core.processes import limit_memory

MEMORY_BYTES = 2 << 30  # Beyond what the process has at its start
CPU_S = 10.0  # Time of the processor for a case
WALL_S = 120.0  # Time on the clock for one that sleeps
_HEAD = struct.Struct("<QBI")  # Number, place of the outcome or _BEGIN, bytes of detail
_BEGIN = 255
_OUTCOMES = list(Outcome)


@dataclass(frozen=True, slots=True)
class Result:
    """How a case of a number ended, and what it said."""

    number: int
    outcome: Outcome
    detail: str = ""


def results(run: Callable[[int], Outcome], numbers: Sequence[int]) -> Iterator[Result]:
    """Result of each number, in their order; another process goes on after one that ended."""
    left = list(numbers)
    while left:
        for result in _in_one_process(run, left):
            yield result
            left.pop(0)


def _in_one_process(run: Callable[[int], Outcome], numbers: Sequence[int]) -> Iterator[Result]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(run, numbers, writer)
    os.close(writer)
    under_way = None
    try:
        while head := _taken(reader, _HEAD.size):
            number, place, n_detail = _HEAD.unpack(head)
            if place == _BEGIN:
                under_way = number
            else:
                under_way = None
                yield Result(number, _OUTCOMES[place], _taken(reader, n_detail).decode(errors="replace"))
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if under_way is not None:
        code = os.waitstatus_to_exitcode(status)
        late = code in (-signal.SIGPROF, -signal.SIGKILL)
        yield Result(under_way, Outcome.HANG if late else Outcome.CRASH, f"ended with {code}")


def _taken(reader: int, n_bytes: int) -> bytes:
    """So many bytes; none at the end of the pipe, or where nothing comes for too long."""
    found = b""
    while len(found) < n_bytes:
        if not select.select([reader], [], [], WALL_S)[0]:
            return b""
        more = os.read(reader, n_bytes - len(found))
        if not more:
            return b""
        found += more
    return found


def _child(run: Callable[[int], Outcome], numbers: Sequence[int], writer: int) -> NoReturn:
    """Run the cases, telling before and after each."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit_memory(MEMORY_BYTES)
        for number in numbers:
            os.write(writer, _HEAD.pack(number, _BEGIN, 0))
            signal.setitimer(signal.ITIMER_PROF, CPU_S)  # its signal ends the process, wherever it is
            outcome, detail = _outcome(run, number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            text = detail.encode()[-2000:]
            os.write(writer, _HEAD.pack(number, _OUTCOMES.index(outcome), len(text)) + text)
    finally:
        os._exit(0)


def _outcome(run: Callable[[int], Outcome], number: int) -> tuple[Outcome, str]:
    try:
        return run(number), ""
    except FcbenchError as error:
        return Outcome.REFUSED, str(error)
    except Exception as error:
        found = Outcome.MEMORY if is_out_of_memory(error) else Outcome.TRACEBACK
        return found, traceback.format_exc()
