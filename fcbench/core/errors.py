"""Errors whose message is for the user."""

import difflib
from collections.abc import Iterable


class FcbenchError(Exception):
    """A failure with a clear line for the user: what was given, what is allowed, what to do next."""


class DiskFull(FcbenchError):
    """A full disk: whatever comes next would fail too, so it ends the run."""


class UnreadableSample(FcbenchError):
    """One sample of a data set cannot be read; the run may continue without it (``--on-bad-image skip``)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy or torch could not allocate memory."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def printable(text: str, keep: str = "\n\t") -> str:
    r"""A text with control characters escaped, except those to keep.

    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    r"""A name or an error's text as one printable line.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return printable(text, keep="")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones, with the nearest match."""
    known = list(known)
    shown = ", ".join(known[:20]) + (f", ... ({len(known)} in all)" if len(known) > 20 else "")
    return f"unknown {what} {name!r}.{nearest(name, known).removeprefix('.')} Known: {shown}."


def nearest(name: str, known: Iterable[str]) -> str:
    """A question to append to a message, with the nearest known name; empty if none is near.

    >>> nearest("lmda", ["lmbda"])
    ". Did you mean 'lmbda'?"
    """
    near = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else ""
