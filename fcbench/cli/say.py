"""Output of verbs. Names may come from files, so control characters are escaped before they reach a terminal."""

from __future__ import annotations

import logging

import click

from fcbench.core.errors import printable


def say(text: object, *, nl: bool = True, err: bool = False) -> None:
    """Print a line, or a text of several; verbs print only through this.

    Args:
        nl: end it with a line feed.
        err: on standard error.
    """
    click.echo(printable(str(text)), nl=nl, err=err)


class LogFormatter(logging.Formatter):
    """Log lines, escaped in the same way."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def size(n_bytes: int) -> str:
    """A size, rounded as an estimate should be.

    >>> size(1_234_000), size(2_345_000_000)
    ('1.2 MB', '2.3 GB')
    """
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:.{int(n_bytes < 1e7)}f} MB"
    return f"{n_bytes / 1e9:.1f} GB"
