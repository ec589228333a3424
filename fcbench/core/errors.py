"""Errors whose message is for the user."""

from __future__ import annotations


class FcbenchError(Exception):
    """A failure with one clear line for the user: what was given, what is allowed, what to do next."""


class UnreadableSample(FcbenchError):
    """One sample of a data set cannot be read; the run may continue without it (``--on-bad-image skip``)."""
