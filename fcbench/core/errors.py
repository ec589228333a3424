"""What a user is told when something fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    pass


class FcbenchError(Exception):
    """A failure with one clear line for the user: what came, what is allowed, what to do next."""


class UnreadableSample(FcbenchError):
    """One sample of a data set cannot be read; the run may go on without it (``--on-bad-image skip``)."""
