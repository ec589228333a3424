"""Files that are written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fcbench.core.errors import DiskFull, FcbenchError

HINT = "choose a folder that can be written"
"""What to do about a folder that cannot be used, where the caller knows no option that names it."""


@contextmanager
def disk_errors(path: Path, hint: str = HINT) -> Iterator[None]:
    """Turn an error of the operating system into one line: the path, the reason, what to do. `hint`: what to do, e.g.
    "choose another --out". Raises `DiskFull`: there is no room; `FcbenchError`: any other error."""
    try:
        yield
    except OSError as error:
        line = f"cannot use {path}: {error.strerror or error}"
        if is_disk_full(error):
            raise DiskFull(f"disk full: {line}; free some space or {hint}.") from error
        raise FcbenchError(f"{line}; {hint}.") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that of a disk or quota without room."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, data: bytes | str, hint: str = HINT) -> None:
    """Write a file whole or not at all, as `atomic_file` does. Raises `FcbenchError`: the file cannot be written; the
    old one is as it was."""
    content = data.encode() if isinstance(data, str) else data
    with atomic_file(path, hint) as file, disk_errors(path, hint):
        file.write(content)


@contextmanager
def atomic_file(path: Path, hint: str = HINT) -> Iterator[BinaryIO]:
    """A file to write, under its name once the block ends without an error; it survives a power cut.

    Missing folders above it are made. Errors of the block pass as they are. `hint`: as of `disk_errors`. Raises
    `FcbenchError`: the file cannot be opened or completed; the old one is as it was.
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


def append_durably(path: Path, data: bytes, hint: str = HINT) -> None:
    """Add to the end of a file, to the disk. Raises `FcbenchError`: the file cannot be written; it is as it was."""
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
