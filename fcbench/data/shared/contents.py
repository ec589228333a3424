"""Contents of a data set's files: digests for its revision, sizes of images. No file is read twice.

Facts about each file are stored in an index, ``CACHE/files/KEY.json``, one per folder, until the file's size, time of
modification, time of last change (ctime, which no program can set; on Windows the time of creation) or inode changes.
Facts about a file that changed within `SETTLING_NS` before reading are not stored: another change could leave the same
status.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcbench.core import cache
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.data.shared.images import array_size, image_size

READING = 2  # Bump when the same file gives other pixels; all revisions of data sets on disk change
SETTLING_NS = 2_000_000_000  # Longest step of the clocks of file systems (FAT)
UNREADABLE = "unreadable"  # Replaces the digest of an unreadable file
_N_READERS = 8
_BLOCK = 10_000  # Files read between two writes of an index
_MANY_BYTES = 4 << 30
_DIGEST, _SIZE = "xxh3", "size_px"
log = logging.getLogger(__name__)

Status = list[int]
Index = dict[str, dict[str, Any]]  # File name -> its status and what was read of it


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a data set."""

    root: Path  # folder of the data set; names in a revision are relative to it
    cache_dir: Path  # holds the index

    def revision(self, files: Iterable[Path]) -> str:
        """Hash of the files' names below the root, of their contents, and of `READING`. Raises `FcbenchError`: a file
        is missing, or the cache cannot be used."""
        paths = sorted(set(files))
        digests = self._facts(_DIGEST, paths, _digest)
        found = hashlib.sha256(f"reading {READING}\n".encode())
        for name, digest in sorted((p.relative_to(self.root).as_posix(), d) for p, d in zip(paths, digests)):
            found.update(f"{name}\0{digest or UNREADABLE}\n".encode())
        return found.hexdigest()[:16]

    def sizes(self, images: Sequence[Path]) -> dict[str, tuple[int, int]]:
        """(H, W) of images in pixels by name below the root, from their headers; unreadable ones are left out. Raises
        `FcbenchError`: see `revision`."""
        return {p.relative_to(self.root).as_posix(): size for p, size in self.sizes_by_path(images).items()}

    def sizes_by_path(self, maps: Sequence[Path]) -> dict[Path, tuple[int, int]]:
        """Like `sizes`, by path; also reads ``.npy`` files."""
        sizes = self._facts(_SIZE, maps, _size)
        return {path: (size[0], size[1]) for path, size in zip(maps, sizes) if size}

    def _facts(self, what: str, paths: Sequence[Path], read: Callable[[Path], Any]) -> list[Any]:
        """A fact about each file, from the index or the file; None if it cannot be read."""
        folders: dict[Path, list[str]] = {}
        for path in paths:
            folders.setdefault(path.parent, []).append(path.name)
        found = {}
        for folder, names in folders.items():
            facts = _facts_in(folder, names, what, read, self.cache_dir / "files")
            found.update({folder / name: fact for name, fact in facts.items()})
        return [found[path] for path in paths]


def _digest(path: Path) -> str | None:
    try:
        return cache.file_digest(path) if path.is_file() else None  # reading a pipe would block forever
    except OSError:
        return None


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return array_size(path) if path.suffix.lower() == ".npy" else image_size(path)
    except UnreadableSample:
        return None


def _facts_in(folder: Path, names: Sequence[str], what: str, read: Callable[[Path], Any], home: Path) -> dict[str, Any]:
    path = home / f"{cache.digest({'folder': str(folder.resolve())})}.json"
    index = _load(path)
    now: Index = {name: {"status": _status(folder / name)} for name in names}
    current = (name for name in names if index.get(name, {}).get("status") == now[name]["status"])
    known = {name: index[name][what] for name in current if what in index[name]}
    missing = [name for name in names if name not in known]
    if not missing:
        return known
    n_bytes = sum(now[name]["status"][0] for name in missing)
    if what == _DIGEST and n_bytes > _MANY_BYTES:
        log.warning("reading %d files of %s once, %.0f GB, for their digests", len(missing), folder, n_bytes / 1e9)
    for start in range(0, len(missing), _BLOCK):  # an interrupted run resumes after the last block
        block, start_ns = missing[start : start + _BLOCK], time.time_ns()
        with ThreadPoolExecutor(_N_READERS) as pool:
            facts = dict(zip(block, pool.map(lambda name: read(folder / name), block)))
        known.update(facts)
        fresh = {n for n in block if any(abs(start_ns - t) <= SETTLING_NS for t in now[n]["status"][1:3])}
        if lasting := {n: {**now[n], what: fact} for n, fact in facts.items() if fact and n not in fresh}:
            _add(path, lasting)
    return known


def _status(path: Path) -> Status:
    try:
        stat = path.stat()
    except OSError as exc:
        raise FcbenchError(f"cannot read {path}: {exc.strerror}") from exc
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _load(path: Path) -> Index:
    data = cache.get(path)
    loaded: Index = json.loads(data) if data is not None else {}
    return loaded


def _add(path: Path, entries: Index) -> None:
    """Add facts to an index; those of files that have changed since are dropped."""
    with cache.locked(path.parent / "index"):
        index = _load(path)
        for name, entry in entries.items():
            old = index.get(name, {})
            index[name] = {**old, **entry} if old.get("status") == entry["status"] else entry
        cache.put(path, json.dumps(index).encode())
