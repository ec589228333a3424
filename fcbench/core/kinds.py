"""Kinds of rate points, of training objectives and of stored features."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from fcbench.core.codecs import OperatingPoint

Objective = Literal["mse", "task", "both"]  # What a learned codec preserves: features, a task's loss, their sum

FeaturesDtype = Literal["float32", "float16"]  # Type of stored features

LABEL = "label"  # Among codecs: the task's own output, coded without loss
_IMAGE = "image:"


def codec_kind(name: str) -> tuple[str, str]:
    """Kind of plug-in and name of what stands among codecs.

    >>> codec_kind("hyperprior"), codec_kind("image:jpeg")
    (('codec', 'hyperprior'), ('image', 'jpeg'))
    """
    if name.startswith(_IMAGE):
        return "image", name.removeprefix(_IMAGE)
    return "codec", name


class Kind(str, Enum):
    """Kinds of rate points: the column ``kind`` of rates.csv."""

    CEILING = "ceiling"  # uncoded features
    FLOOR = "floor"  # every feature replaced by its training mean
    CODED = "coded"  # coded features
    REMOTE = "remote"  # remote inference: the image coded, and encoded again at the far end
    PUBLISHED = "published"  # stated by others, not measured here; in no rates.csv
    LABEL = "label"  # the task's own output, coded without loss

    def __str__(self) -> str:
        return str(self.value)


ENDS = {Kind.CEILING: OperatingPoint("uncoded"), Kind.FLOOR: OperatingPoint("mean")}  # The ends of a curve
