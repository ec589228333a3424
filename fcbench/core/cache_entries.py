"""Entries of a cache folder: their kind, size, age and origin; how to check and remove them."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fcbench.core import cache, libraries
from fcbench.core.cache import ASIDE, BESIDE, CACHE_HINT, Cache
from fcbench.core.errors import FcbenchError
from fcbench.core.files import disk_errors

KINDS = {
    **{
        "features": "shards of feature sets",
        "stats": "statistics of feature sets",
        "task": "necks and heads",
        "codec": "codecs",
    },
    **{"sweep": "codecs of variable rate", "scale": "scales of densities", "encoder-macs": "counts of operations"},
    **{"levels": "weights of maps", "encoder-ms": "times of encoders"},
    **{"resume": "trainings under way", "part": "extractions under way", "scenes": "rendered scenes"},
    **{"files": "indices of data sets", "other": "other files"},
}
"""Kind of entry -> its title. Files without a name of the cache's count as other files and are never removed."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

_OLDER = "an older fcbench"
_FEATURES = re.compile(r"[0-9a-f]{24}(\.part)?")
_SHARD = re.compile(r"\d{8}(\.part)?")
_STATS = re.compile(r"stats(-[0-9a-f]{20})?\.safetensors")
_MODEL = re.compile(r"([a-z-]+)-[0-9a-f]{20}\.[a-z]+")
_INDEX = re.compile(r"[0-9a-f]{20}\.json")
_SIZE = re.compile(r"\d+x\d+")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of the cache."""

    kind: str
    path: Path  # of the file, or of the folder with all its files
    files: tuple[Path, ...]  # what it consists of, digests included
    n_bytes: int
    made: float  # time of its newest file [s]
    # what made it and has changed since; empty for an entry that is, or may be, still in use
    stale: tuple[str, ...] = ()


def entries(root: Path) -> list[Entry]:
    """Entries of a cache, oldest first. Raises `FcbenchError`: the cache cannot be read."""
    with disk_errors(root, CACHE_HINT):
        return sorted(filter(None, map(_entry, _places(Cache(root)))), key=lambda e: (e.made, e.path))


def damaged(entries: Iterable[Entry]) -> Iterator[Path]:
    """Remove files that do not match their digest, and yield them; they are made again when needed. Raises
    `FcbenchError`: one cannot be read or removed."""
    for file in (f for e in entries if e.kind not in ("part", "other") for f in e.files if not f.name.endswith(ASIDE)):
        with disk_errors(file, CACHE_HINT), suppress(FileNotFoundError):
            if not cache.matches(file):
                cache.remove(file)
                yield file


def to_remove(entries: Sequence[Entry], limit: int | None) -> list[Entry]:
    """Entries to remove: the stale ones, then the oldest ones until the rest fits a limit. `entries`: oldest first.
    `limit`: in bytes; None to remove stale entries only."""
    chosen = [e for e in entries if e.stale]
    if limit is not None:
        left = sum(e.n_bytes for e in entries if not e.stale)
        for entry in entries:
            if left <= limit:
                break
            if not entry.stale and entry.kind != "other":
                chosen.append(entry)
                left -= entry.n_bytes
    return chosen


def remove(entry: Entry) -> bool:
    """Remove an entry; returns whether it is gone. An entry that another process is making stays. Raises
    `FcbenchError`: it cannot be removed."""
    lock_of = {"part": "", "resume": ".safetensors"}  # a training holds the lock of what it makes
    path = entry.path.with_suffix(lock_of.get(entry.kind, entry.path.suffix))
    with disk_errors(entry.path, CACHE_HINT), cache.locked(path, wait=False) as held:
        if held and entry.path.is_dir():
            shutil.rmtree(entry.path)
        for file in entry.files if held else ():
            file.unlink(missing_ok=True)
    return held


def n_bytes_of(text: str) -> int:
    """Number of bytes in a size such as ``10GB``. Raises `FcbenchError`: not a size.

    >>> n_bytes_of("10GB"), n_bytes_of("1.5 GiB"), n_bytes_of("0")
    (10000000000, 1610612736, 0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in UNITS or len(match[1]) > 15:
        raise FcbenchError(f"{text[:40]!r} is not a size: give for example 500MB, 10GB, 2GiB or 0")
    return int(float(match[1]) * UNITS[match[2]])


def _places(home: Cache) -> Iterator[tuple[str, Path]]:
    for path in _in(home.features):
        if path.is_dir() and _FEATURES.fullmatch(path.name):
            shards = [p for p in _in(path) if p.is_dir() and _SHARD.fullmatch(p.name)]
            unsharded = [path] if _in(path) and not shards else []
            yield from (("part" if p.suffix == ".part" else "features", p) for p in shards or unsharded)
            yield from (("stats", p) for p in _in(path) if shards and _STATS.fullmatch(p.name))
        else:
            yield "other", path
    for path in _in(home.models):
        match = _MODEL.fullmatch(path.name)
        kind = match[1] if match else ""
        yield ("resume" if kind and path.suffix == ".resume" else kind if kind in KINDS else "other"), path
    for path in _in(home.root / "files"):
        yield ("files" if _INDEX.fullmatch(path.name) else "other"), path
    for scenes in home.root.glob("scenes-v*"):
        sizes = (size for size in _in(scenes) if _SIZE.fullmatch(size.name))
        yield from (("scenes", split) for size in sizes for split in _in(size) if split.is_dir())


def _in(folder: Path) -> list[Path]:
    """Files in a folder, without digests, locks and unfinished files."""
    return sorted(p for p in folder.iterdir() if not p.name.endswith(ASIDE)) if folder.is_dir() else []


def _entry(place: tuple[str, Path]) -> Entry | None:
    kind, path = place
    beside = [path, *(path.with_name(path.name + end) for end in BESIDE)]
    files = tuple(f for f in (path.rglob("*") if path.is_dir() else beside) if f.is_file())
    with suppress(FileNotFoundError):
        stats = [f.stat() for f in files]
        made = max((s.st_mtime for s in stats), default=path.stat().st_mtime)
        return Entry(kind, path, files, sum(s.st_size for s in stats), made, _stale(kind, path))
    return None


def _stale(kind: str, path: Path) -> tuple[str, ...]:
    if kind == "stats":  # as the shards that they are of
        return _stale("features", path.parent / f"{0:08d}")
    if kind == "features":
        if not _SHARD.fullmatch(path.name):
            return (_OLDER,)
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            key = json.loads((path / "index.json").read_bytes())["key"]
            return tuple(libraries.changed(key["code"])) if "code" in key else (_OLDER,)
        return ()
    if kind in ("task", "codec", "sweep", "scale", "levels"):
        by = cache.made_by(path)
        return tuple(libraries.changed(by)) if by else (_OLDER,)
    return ()
