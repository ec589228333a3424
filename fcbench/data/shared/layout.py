"""Folders of a data set: where files are expected, revisions, errors about layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def require_root(name: str, options: DataOptions, layout: str) -> Path:
    """The folder of a data set on disk.

    Raises:
        FcbenchError: no root was given, or it is no folder; the message holds the layout expected.
    """
    if options.root is None:
        raise FcbenchError(f"data set {name!r} needs a folder: give --data-root DIR with {layout}")
    if not options.root.is_dir():
        raise FcbenchError(layout_error(name, options.root, "is no folder", layout))
    return options.root


def layout_error(name: str, path: Path, problem: str, layout: str) -> str:
    """One line for data that do not lie as they should."""
    return f"data set {name!r}: {path} {problem}. Expected: {layout}"


def images_in(name: str, folder: Path, layout: str) -> list[Path]:
    """Image files of a folder, sorted by name.

    Raises:
        FcbenchError: no such folder, it cannot be read, or no image is in it.
    """
    if not folder.is_dir():
        raise FcbenchError(layout_error(name, folder, "is missing", layout))
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as exc:
        problem = f"cannot be read ({exc.strerror})"
        raise FcbenchError(layout_error(name, folder, problem, layout)) from exc
    if not files:
        raise FcbenchError(layout_error(name, folder, "holds no images", layout))
    return sorted(files, key=lambda p: p.name)


def some(names: Sequence[str], n: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b", "c"], n=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more


def files_revision(root: Path, files: Iterable[Path]) -> str:
    """Hash of the files' names below the root and their sizes; their content is not read.

    Raises:
        FcbenchError: a file cannot be looked at.
    """
    digest = hashlib.sha256()
    try:
        entries = sorted((p.relative_to(root).as_posix(), p.stat().st_size) for p in files)
    except OSError as exc:
        raise FcbenchError(f"cannot read {exc.filename}: {exc.strerror}") from exc
    for path, n_bytes in entries:
        digest.update(f"{path}\0{n_bytes}\n".encode())
    return digest.hexdigest()[:16]
