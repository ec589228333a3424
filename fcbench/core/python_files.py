"""Python files of users: read and run as modules; any failure becomes one line that names the line of the file."""

import hashlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from fcbench.core.errors import FcbenchError


def read_source(path: Path, what: str) -> bytes:
    """Content of a Python file. `what`: the file in messages, e.g. "the suite". Raises `FcbenchError`: it is missing,
    not a regular file, or cannot be read."""
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise FcbenchError(f"cannot read {what} {path}: it is {kind}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise FcbenchError(f"cannot read {what} {path}: {reason}") from None


def run_file(path: Path, source: bytes, what: str) -> ModuleType:
    """The module that a source makes; the same content always gives the same module. Raises `FcbenchError`: the source
    cannot be compiled, or raises; the message ends with the line of the file."""
    name = f"fcbench_file_{path.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        del sys.modules[name]
        line = _line_of(error, path, source)
        where = f" (line {line})" if line else ""
        reason = re.sub(rf" \({re.escape(path.name)}, line \d+\)$", "", reason_of(error))
        raise FcbenchError(f"cannot load {what} {path}: {reason}{where}") from error
    return module


def reason_of(error: BaseException) -> str:
    """An error in one line: its type and message; only the message for `FcbenchError`."""
    first = next(iter(str(error).splitlines()), "")
    return first if isinstance(error, FcbenchError) and first else f"{type(error).__name__}: {first}".rstrip(": ")


def _line_of(error: BaseException, path: Path, source: bytes) -> int | None:
    if isinstance(error, SyntaxError) and error.filename in (str(path), None):
        return error.lineno or _undecodable_line(source)
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return frames[-1] if frames else _undecodable_line(source)


def _undecodable_line(source: bytes) -> int | None:
    """The line of the first byte that is not text: NUL, or not UTF-8."""
    at = source.find(b"\0")
    if at < 0:
        try:
            source.decode()
            return None
        except UnicodeDecodeError as error:
            at = error.start
    return source.count(b"\n", 0, at) + 1
