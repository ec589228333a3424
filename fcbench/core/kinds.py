"""Kinds of rate points and of training objectives."""

from __future__ import annotations

from typing import Literal

from fcbench.core.codecs import OperatingPoint

Objective = Literal["mse", "task", "both"]
"""What a learned codec preserves: features, a task's loss, their sum."""


LABEL = "label"
"""Among codecs: the task's own output, coded without loss."""
_IMAGE = "image:"


def codec_kind(name: str) -> tuple[str, str]:
    """Kind of plug-in and name of what stands among codecs.

    >>> codec_kind("hyperprior"), codec_kind("image:jpeg")
    (('codec', 'hyperprior'), ('image', 'jpeg'))
    """
    if name.startswith(_IMAGE):
        return "image", name.removeprefix(_IMAGE)
    return "codec", name


CEILING, FLOOR, CODED, REMOTE, LABELS = "ceiling", "floor", "coded", "remote", "label"
"""Kinds of rate points: uncoded features; their training mean; coded features; the image coded and encoded again at
the far end (remote inference); what the head made of uncoded features, coded without loss."""
ENDS = {CEILING: OperatingPoint("uncoded"), FLOOR: OperatingPoint("mean")}
