"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fcbench.core.errors import FcbenchError

HINT = "choose a folder that can be written"
"""What to do about a folder that cannot be used, where the caller knows no option that names it."""


@contextmanager
def disk_errors(path: Path, hint: str = HINT) -> Iterator[None]:
    """Turn an error of the operating system into one line: the path, the reason, what to do.

    Args:
        hint: what to do, e.g. "choose another --out".
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = f"free some space or {hint}" if full else hint
        raise FcbenchError(f"cannot use {path}: {error.strerror or error}; {advice}.") from error


def write_atomically(path: Path, data: bytes | str, hint: str = HINT) -> None:
    """Write a file whole or not at all; it survives a power cut. Missing folders above it are made.

    Args:
        hint: as of `disk_errors`.

    Raises:
        FcbenchError: the file cannot be written; the old one is as it was.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def append_durably(path: Path, data: bytes, hint: str = HINT) -> None:
    """Add to the end of a file, to the disk.

    Raises:
        FcbenchError: the file cannot be written; it is as it was.
    """
    with disk_errors(path, hint), open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(size)
            raise


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
