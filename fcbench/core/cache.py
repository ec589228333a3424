"""The cache: files of what was made once, named by the recipe's digest and checked for damage.

Beside each file lies ``FILE.xxh3`` with its digest and name, as ``xxh128sum --check`` reads them, and those of the
record of its training. A file that does not match is never used: it is reported, removed and made again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock
import xxhash

from fcbench.core import libraries
from fcbench.core.files import disk_errors, write_atomically

CACHE_HINT = "give another --cache-dir"
PATIENCE_S = 5.0  # How long to wait for another process before saying so
DIGEST_SUFFIX = ".xxh3"
MADE_SUFFIX = ".made"  # Beside a trained file: versions of the libraries that made it
TRAINING_SUFFIX = ".training"  # Beside a trained model: how its training went
BESIDE = (DIGEST_SUFFIX, MADE_SUFFIX, TRAINING_SUFFIX)  # Suffixes of files that come and go with another one
ASIDE = (*BESIDE, ".lock", ".tmp")  # Suffixes of files that belong to another one, or are unfinished
_BLOCK_BYTES = 4 << 20
log = logging.getLogger(__name__)


def digest(what: Mapping[str, Any]) -> str:
    """Hash of everything that determines a result: 20 hexadecimal digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache folder.

    Attributes:
        keeps_features: whether features are stored; if not, the encoder computes them whenever they are read.
    """

    root: Path
    keeps_features: bool = True

    @property
    def features(self) -> Path:
        """Folder of the feature sets, one folder per set."""
        return self.root / "features"

    @property
    def models(self) -> Path:
        """Folder of trained readouts and codecs, and of cached counts."""
        return self.root / "models"

    def model(self, kind: str, key: str, suffix: str = ".safetensors") -> Path:
        """File of a trained model of a kind (``task``, ``codec``, ...)."""
        return self.models / f"{kind}-{key}{suffix}"

    def make(self) -> Cache:
        """Make the folders. Raises `FcbenchError`: the cache cannot be used."""
        with disk_errors(self.root, CACHE_HINT):
            self.models.mkdir(parents=True, exist_ok=True)
        return self


def cached(path: Path, make: Callable[[], bytes]) -> bytes:
    """Contents of a cache file; it is made and stored first if it is missing or damaged. One process makes it, others
    wait. Raises `FcbenchError`: the cache cannot be used; also whatever `make` raises."""
    if (content := get(path)) is not None:
        return content
    with locked(path):
        if (content := get(path)) is not None:
            return content
        data = make()
        write_atomically(_beside(path, MADE_SUFFIX), json.dumps(libraries.installed()), CACHE_HINT)
        put(path, data)
    return data


def made_by(path: Path) -> dict[str, str]:
    """Versions of the libraries that made a cached file, by name; empty if unknown."""
    with suppress(OSError, ValueError):
        return dict(json.loads(_beside(path, MADE_SUFFIX).read_bytes()))
    return {}


def get(path: Path) -> bytes | None:
    """Contents of a cache file; None if it is missing or damaged (a damaged one is removed)."""
    if not is_whole(path):
        return None
    with disk_errors(path, CACHE_HINT):
        return path.read_bytes()


def put(path: Path, data: bytes) -> None:
    """Write a cache file and its digest."""
    _write_digest(path, f"{xxhash.xxh3_128_hexdigest(data)}  {path.name}")
    write_atomically(path, data, CACHE_HINT)


def seal(path: Path) -> None:
    """Write the digest of a file that is already in place."""
    with disk_errors(path, CACHE_HINT):
        line = _line(path)
    _write_digest(path, line)


Fetch = Callable[[Path], bool]
"""Copies a file and what lies beside it from another machine's cache into this one; returns whether it is here now."""
_fetch: Fetch = lambda path: False


def fetch_by(fetch: Fetch) -> None:
    """From now on, fetch files that this process's cache lacks from other machines."""
    global _fetch
    _fetch = fetch


def is_whole(path: Path) -> bool:
    """Whether a cache file exists and matches its digest; a damaged one is reported and removed."""
    with disk_errors(path, CACHE_HINT):
        if not path.is_file() and not _fetch(path):
            return False
        if matches(path):
            return True
        log.warning("%s is damaged: making it again", path)
        remove(path)
    return False


def matches(path: Path) -> bool:
    """Whether a file, and the record of its training if its digest is known, match. Raises OSError."""
    lines, record = _lines(path), _beside(path, TRAINING_SUFFIX)
    known = [line for line in lines if line.endswith(f"  {record.name}")]
    return _line(path) in lines and (not known or (record.is_file() and _line(record) in known))


def has_digest(path: Path) -> bool:
    """Whether a cache file and its digest exist; reads neither."""
    return path.is_file() and _beside(path, DIGEST_SUFFIX).is_file()


def remove(path: Path) -> None:
    """Remove a cache file and what lies beside it."""
    for end in ("", *BESIDE):
        _beside(path, end).unlink(missing_ok=True)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a cache file or folder; wait for another process that holds it. `wait`: if False, go on without
    the lock instead of waiting. Yields whether the lock is held."""
    with disk_errors(path, CACHE_HINT):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f"{path.name}.lock"))
        try:
            lock.acquire(timeout=PATIENCE_S if wait else 0)
        except filelock.Timeout:
            if wait:
                log.warning("waiting for another process that makes %s", path)
                lock.acquire()
    try:
        if lock.is_locked:
            # of a process that was killed: of this file or, by another suffix, of its training
            for unfinished in path.parent.glob(f".{glob.escape(path.stem)}*.tmp"):
                unfinished.unlink(missing_ok=True)
        yield lock.is_locked
    finally:
        lock.release()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _lines(path: Path) -> list[str]:
    file = _beside(path, DIGEST_SUFFIX)
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _write_digest(path: Path, line: str) -> None:
    """Write a digest before its file, beside the digest of the file it replaces: one of them always matches."""
    record = _beside(path, TRAINING_SUFFIX)
    with disk_errors(path, CACHE_HINT):
        lines = [*[old for old in _lines(path) if old.endswith(f"  {path.name}")][-1:], line]
        lines += [_line(record)] if record.is_file() else []
    write_atomically(_beside(path, DIGEST_SUFFIX), "\n".join(lines) + "\n", CACHE_HINT)


def file_digest(path: Path) -> str:
    """Digest of a file's contents (xxh3, 128 bits), read in blocks. Raises OSError."""
    digest, block = xxhash.xxh3_128(), bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(block):
            digest.update(memoryview(block)[:n])
    return digest.hexdigest()


def _line(path: Path) -> str:
    """Digest of a file's contents, computed once per process until the file changes, and its name."""
    stat = path.stat()
    return f"{_digest_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)}  {path.name}"


@lru_cache(maxsize=65536)
def _digest_of(path: Path, *version: int) -> str:
    return file_digest(path)
