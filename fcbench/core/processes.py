"""Worker processes that end with the process that started them, and hold none of its pipes open."""

import ctypes
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path

from fcbench.core.errors import FcbenchError


def end_with_parent() -> None:
    """Call this in a worker process: it then ends as soon as its parent has, even if the parent is killed.

    multiprocessing gives every worker the reading end of a pipe whose other end only the parent holds. A thread that
    waits for it works on every system, and notices a parent that is already gone.
    """
    threading.Thread(target=_await_parent, name="await-parent", daemon=True).start()


def _await_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Let this process have so much more address space than it has, and no more; where the system does not tell how
    much it has, as much as it likes."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Memory that a call adds to this process at its peak, whatever the allocator keeps; None where the system cannot
    say (only Linux with glibc can). The system's own record of the process's peak, ``ru_maxrss``, starts anew."""
    before = _peak_bytes(anew=True)
    if before is None:
        return None
    call()
    return max(0, (_peak_bytes() or before) - before)


def _peak_bytes(anew: bool = False) -> int | None:
    """Peak memory of this process; `anew`: from now on. None where the system cannot say."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            if anew:
                ctypes.CDLL(None).malloc_trim(0)  # memory that the allocator keeps would be used again, unseen
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is now what is in use
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    return None


def start_worker() -> None:
    """Call this first in a worker process: it ends with its parent, and keeps nothing open that others read to its end.
    Errors come back by value."""
    end_with_parent()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def workers(n: int, what: str, start: Callable[[], None] = start_worker) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that end with this one. On an error, work that has not begun is dropped. `what`: they
    do, for the message, e.g. "render scenes". `start`: what each calls first: `start_worker`, and more. Raises
    `FcbenchError`: one of them died."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n, mp_context=context, initializer=start)
    try:
        yield pool
    except BrokenProcessPool as exc:
        raise died(what) from exc
    finally:
        pool.shutdown(cancel_futures=True)


def died(what: str) -> FcbenchError:
    """The error for a process that died; `what` as in `workers`."""
    advice = 'a script must call fcbench under `if __name__ == "__main__":`; otherwise it ran out of memory'
    return FcbenchError(f"a process to {what} died: {advice}")
