"""The rest of an encoder's own network, and what an encoder that has one must say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # the nouns are plain data: importing them imports no torch
    from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder
from fcbench.core.tasks import Head


@runtime_checkable
class Tail(Head, Protocol):
    """The layers of a network after a split point, frozen, as a task's `Head`: an ``nn.Module``. Its x is a dict of
    maps [B, C, h, w] by split point."""

    label_names: tuple[str, ...]  # of the network's outputs, in their order; empty where the task has no classes

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss of decoded maps against what the tail says of the uncoded ones; needs no labels."""


@runtime_checkable
class TailedEncoder(Encoder, Protocol):
    """An encoder that is the front of a whole network."""

    # by task, the split points, and groups of them, after which the network's rest can be built
    tails: Mapping[str, tuple[str, ...]]

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """The `Tail` after a split point or group that `tails` names, on the encoder's device. `image_px`: (H, W) of
        the images. Raises `FcbenchError`: front and tail together are not the network, for images of this size."""


def build_tail(encoder: Encoder, task: str, split_points: Sequence[str], image_px: tuple[int, int]) -> Any:
    """The `Tail` of an encoder after split points. Raises `FcbenchError`: it has none; the message names the split
    points that have one."""
    tails: Mapping[str, tuple[str, ...]] = encoder.tails if isinstance(encoder, TailedEncoder) else {}
    if not any(tails.values()):
        raise FcbenchError(f"{encoder.name} has no tail at any split point: --head tail needs one, use --head trained")
    if task not in tails:
        raise FcbenchError(f"{encoder.name} has no tail for {task}: it has one for {', '.join(tails)}")
    named = [name for name in tails[task] if encoder.groups.get(name, (name,)) == tuple(split_points)]
    if not named:
        raise FcbenchError(
            f"{encoder.name} has no tail at {'+'.join(split_points)}: "
            f"--split-point must be one of {', '.join(tails[task])}"
        )
    assert isinstance(encoder, TailedEncoder)
    return encoder.tail(task, named[0], image_px)


def require_labels(network: str, own: Sequence[str], dataset: str, given: Sequence[str]) -> None:
    """Refuse a data set whose classes are not a network's: number, names and order. Raises `FcbenchError`."""
    if len(own) != len(given):
        raise FcbenchError(
            f"data set {dataset!r} has {len(given)} classes, {network} states {len(own)} ({', '.join(own[:3])}, ...): "
            "a tail needs the network's own (--dataset imagenet1k for ImageNet's 1000)"
        )
    for i, (a, b) in enumerate(zip(own, given)):
        if a != b:
            raise FcbenchError(
                f"class {i} of data set {dataset!r} is {b!r}, of {network} {a!r}: labels must be the same"
            )
