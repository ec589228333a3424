"""Caches of a Ray cluster whose machines share no folder.

Each machine has a cache in its temporary folder. Files that a node needs are copied from the driver's cache, and its
products are copied there before the node counts as done, one file at a time through Ray's object store. Every machine
reads data sets on disk under the same path.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fcbench.core import cache
from fcbench.core.cache import ASIDE, BESIDE, Cache
from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.measure.graph import Node
from fcbench.measure.workshop import Outcome, Setup

T = TypeVar("T")
Do = Callable[[Setup, Node, Mapping[str, str]], Outcome | FcbenchError]
"""Executes a node; an error that ends the run is returned, because Ray would wrap it."""
CLEAR_S = 30
"""How long machines may take to clear their caches."""


class Files:
    """The driver's cache, as an actor on its machine; files are named by their paths in it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> dict[str, bytes]:
        """A file and what lies beside it, by suffix, itself last; empty if it is missing or damaged."""
        path = self._root / name
        if not cache.is_whole(path):
            return {}
        files = {end: path.with_name(path.name + end) for end in (*BESIDE, "")}
        return {end: file.read_bytes() for end, file in files.items() if file.is_file()}

    def lacks(self, names: Sequence[str]) -> list[str]:
        """The names of files that are missing or damaged, with what lies beside them."""
        paths = {name: self._root / name for name in sorted(names, key=lambda n: n.endswith(BESIDE))}
        return [n for n, p in paths.items() if not (p.is_file() if n.endswith(BESIDE) else cache.is_whole(p))]

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        write_atomically(self._root / name, data, cache.CACHE_HINT)


@contextmanager
def apart(ray: Any, cache_dir: Path, do: Do) -> Iterator[Do]:
    """The function of a task if machines have their own caches, which are cleared at the end."""
    here = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": _on(ray.get_runtime_context().get_node_id())}
    files = ray.remote(Files).options(**here).remote(cache_dir)

    def _do(setup: Setup, node: Node, reasons: Mapping[str, str]) -> Outcome | FcbenchError:
        root = _own_cache()
        cache.fetch_by(lambda path: _fetch(files, root, path))
        result = do(replace(setup, cache_dir=root), node, reasons)
        _hand_over(files, Cache(root))
        return result

    try:
        yield _do
    finally:
        on_each(ray, _clear, None, CLEAR_S)


def on_each(ray: Any, function: Callable[[Any], T], argument: Any, limit_s: float | None = None) -> list[tuple[str, T]]:
    """Results of a function on each machine of the cluster, with the machine's name."""
    nodes, task = [n for n in ray.nodes() if n["Alive"]], ray.remote(function)
    requests = [task.options(num_cpus=0, scheduling_strategy=_on(n["NodeID"])).remote(argument) for n in nodes]
    results = ray.get(requests, timeout=limit_s)
    return list(zip((n["NodeManagerHostname"] for n in nodes), results, strict=True))


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


# ------------------------------------------------------------------------------------------ inside of a task
_handed_over: set[str] = set()
"""Names of files in the driver's cache, as far as this process knows."""


def _own_cache() -> Path:
    """The cache of this machine; several machines simulated by one computer have one each."""
    import ray

    return Path(tempfile.gettempdir()) / f"fcbench-{ray.get_runtime_context().get_node_id()}"


def _clear(_: None) -> None:
    shutil.rmtree(_own_cache(), ignore_errors=True)


def _fetch(files: Any, root: Path, path: Path) -> bool:
    """Copy a file from the driver's cache into this machine's."""
    import ray

    if not path.is_relative_to(root):
        return False
    content: dict[str, bytes] = ray.get(files.read.remote(str(path.relative_to(root))))
    for end, data in content.items():
        write_atomically(path.with_name(path.name + end), data, cache.CACHE_HINT)
    return bool(content)


def _hand_over(files: Any, local: Cache) -> None:
    """Copy features and models that the driver's cache lacks; the file that makes an entry valid is copied last."""
    import ray

    made = [*local.models.glob("*"), *local.features.glob("*/*"), *local.features.glob("*/*/*")]
    paths = {str(p.relative_to(local.root)): p for p in made if _is_finished(p) and p.is_file()}
    lacking = ray.get(files.lacks.remote([name for name in paths if name not in _handed_over]))
    for name in sorted(lacking, key=lambda n: (n.endswith("index.json"), not n.endswith(BESIDE))):
        ray.get(files.write.remote(name, paths[name].read_bytes()))
    _handed_over.update(paths)


def _is_finished(path: Path) -> bool:
    """Whether a file is complete: not a lock, an unfinished training or an unfinished shard."""
    unfinished = set(ASIDE) - set(BESIDE)
    return not path.name.endswith((*unfinished, ".resume")) and not path.parent.name.endswith(".part")
