"""The nodes of a graph as Ray tasks, on an existing cluster or on one made from this machine's cores.

Ray places tasks by their requirements (CPU threads, a share of a GPU, memory) and restarts one whose worker or machine
is lost. Products of nodes go to the cache, which every machine of the cluster reaches under the same path; or each
machine has its own cache (`fcbench.measure.ray_caches`).

References:
    https://docs.ray.io, package ``ray`` (``pip install fcbench[ray]``).
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fcbench.core.cache import CACHE_HINT
from fcbench.core.errors import FcbenchError
from fcbench.core.files import disk_errors
from fcbench.core.progress import RelayedReport, Report
from fcbench.measure import ray_caches
from fcbench.measure.executors import ATTEMPTS, Executor, setup_of
from fcbench.measure.graph import Node
from fcbench.measure.ray_caches import Do
from fcbench.measure.study import Study
from fcbench.measure.workshop import Outcome, Setup, Workshop

LOCAL = "local"
"""Address that stands for a cluster on this machine, for this run."""
AT_ONCE = 1000
"""Tasks queued in Ray at a time, so that a growing cluster sees the pending work."""
CONNECT_S = 10
"""How long a cluster may take to answer."""


class OnRay:
    """Executes nodes as Ray tasks."""

    n_at_once = AT_ONCE

    def __init__(self, ray: Any, setup: Setup, here: Workshop, gpus_per_task: float, do: Do) -> None:
        self._ray, self._here, self._setup = ray, here, ray.put(setup)
        task, how = ray.remote(do), {"num_cpus": setup.threads, "num_gpus": gpus_per_task, "max_retries": ATTEMPTS - 1}
        self._task_of = cache(lambda memory_bytes: task.options(memory=memory_bytes, **how))

    def submit(self, node: Node, reasons: Mapping[str, str]) -> Future[Outcome]:
        """Have a node executed, anywhere."""
        outer: Future[Outcome] = Future()
        found = self._task_of(node.memory_bytes).remote(self._setup, node, dict(reasons)).future()
        found.add_done_callback(lambda _: self._end(node, found, outer))
        return outer

    def _end(self, node: Node, future: Future[Outcome | FcbenchError], outer: Future[Outcome]) -> None:
        """Pass a result on; a task that Ray gave up becomes a failure."""
        try:
            error = future.exception()
            if isinstance(error, self._ray.exceptions.RayError):
                outer.set_result(self._here.refuse(node, f"Ray gave it up: {str(error).splitlines()[0]}"))
                return
            result = future.result()
            if isinstance(result, FcbenchError):
                raise result
            outer.set_result(result)
        except BaseException as raised:
            outer.set_exception(raised)


@contextmanager
def on_ray(
    study: Study,
    out: Path,
    keep_streams: bool,
    report: Report,
    *,
    address: str = LOCAL,
    threads: int | None = None,
    gpus_per_task: float | None = None,
    own_caches: bool = False,
    do: Do | None = None,
) -> Iterator[Executor]:
    """Do the work on a Ray cluster.

    Args:
        address: of a cluster; ``auto`` for this machine's cluster, ``local`` for a new one on this machine.
        threads: per task; None for one.
        gpus_per_task: share of a GPU; None for a quarter if there is a GPU, else none.
        own_caches: each machine has its own cache; otherwise all use the driver's.
        do: function that a task runs; None for the node's work.

    Raises:
        FcbenchError: no Ray, no such cluster, or a machine that cannot see the cache.
    """
    ray = _connected(address)
    try:
        share = gpus_per_task if gpus_per_task is not None else 0.25 * (study.device.type == "cuda")
        setup = replace(setup_of(study, None, keep_streams, threads or 1), cache_dir=study.cache.root.absolute())
        with ExitStack() as stack:
            if own_caches:
                do = stack.enter_context(ray_caches.apart(ray, setup.cache_dir, do or _do))
            else:
                _check_cache(ray, setup.cache_dir)
            yield OnRay(ray, setup, Workshop(study, report, out), share, do or _do)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise FcbenchError("--ray needs the package ray: pip install 'fcbench[ray]'") from error
    host, _, port = address.rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise FcbenchError(f"no Ray cluster at {address!r} ({error}): start one") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # several types without a common base
        raise FcbenchError(f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}): start one") from error
    return ray


def _check_cache(ray: Any, cache_dir: Path) -> None:
    """Raise `FcbenchError` if a machine of the cluster cannot see the cache."""
    token = cache_dir / f".seen-{uuid.uuid4().hex}"
    with disk_errors(cache_dir, CACHE_HINT):
        token.touch()
    try:
        blind = [host for host, seen in ray_caches.on_each(ray, _sees, token) if not seen]
    finally:
        token.unlink(missing_ok=True)
    if blind:
        raise FcbenchError(
            f"{', '.join(blind)} does not see {cache_dir}: give a --cache-dir that all machines share, or --own-caches"
        )


# ------------------------------------------------------------------------------------------ inside of a task
_workshops: dict[str, Workshop] = {}
"""Workshop of this process, which Ray keeps for further tasks; one at a time."""


def _sees(path: Path) -> bool:
    return path.exists()


def _do(setup: Setup, node: Node, reasons: Mapping[str, str]) -> Outcome | FcbenchError:
    notes: list[str] = []
    with _logged(notes.append):
        try:
            key = repr(setup)
            if key not in _workshops:
                _workshops.clear()
                _workshops[key] = setup.open(RelayedReport(lambda event: None))
            outcome = _workshops[key].do(node, reasons)
        except FcbenchError as error:
            return error
    return replace(outcome, notes=(*outcome.notes, *notes))


@contextmanager
def _logged(say: Callable[[str], object]) -> Iterator[None]:
    """Pass log records on while the block runs."""
    handler = _Saying(say)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
