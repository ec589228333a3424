"""Files that are written completely or not at all."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fcbench.core.errors import DiskFull, FcbenchError

HINT = "choose a folder that can be written"
"""Advice about an unusable folder, for callers that know no option that names it."""


@contextmanager
def disk_errors(path: Path, hint: str = HINT) -> Iterator[None]:
    """Turn an error of the operating system into one line: the path, the reason, what to do. `hint`: what to do, e.g.
    "choose another --out". Raises `DiskFull`: the disk is full; `FcbenchError`: any other error."""
    try:
        yield
    except OSError as error:
        line = f"cannot use {path}: {error.strerror or error}"
        if is_disk_full(error):
            raise DiskFull(f"disk full: {line}; free some space or {hint}.") from error
        raise FcbenchError(f"{line}; {hint}.") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, is a full disk or quota."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, data: bytes | str, hint: str = HINT) -> None:
    """Write a file completely or not at all, as `atomic_file` does. Raises `FcbenchError`: the file cannot be written;
    the old one is unchanged."""
    content = data.encode() if isinstance(data, str) else data
    with atomic_file(path, hint) as file, disk_errors(path, hint):
        file.write(content)


@contextmanager
def atomic_file(path: Path, hint: str = HINT) -> Iterator[BinaryIO]:
    """Open a file that appears under its name once the block ends without an error, and survives a power cut.

    Missing parent folders are made. Errors of the block pass through. `hint`: see `disk_errors`. Raises
    `FcbenchError`: the file cannot be opened or completed; the old one is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FcbenchError(f"cannot use {path}: it is not a regular file; {hint}.")  # /dev/null would be replaced
        file = open(temporary, "wb")
    try:
        yield file
        with disk_errors(path, hint):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def append_durably(path: Path, text: bytes, hint: str = HINT) -> None:
    """Append lines to a file of lines, all of them or none that `appended` returns, and flush them to disk.

    Until all are on the disk, their first byte is NUL. Raises `FcbenchError`: the file cannot be written; it is
    unchanged.
    """
    with disk_errors(path, hint), open(path, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(b"\0" + text[1:])
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
            file.seek(size)
            file.write(text[:1])
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(size)
            raise


def appended(content: bytes) -> bytes:
    """Lines of a file without those that a killed process was appending.

    >>> appended(b"a\\nb\\n\\0\\nd\\n")
    b'a\\nb\\n'
    """
    whole, cut, _ = content.partition(b"\n\0")
    return whole + b"\n" if cut else content


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems that let a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
