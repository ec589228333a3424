"""What official task models share: their own encoder, their frozen decoder, both tied to an image size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, Features, FeatureSpec, WeightsInfo
from fcbench.core.tasks import Task
from fcbench.encoders.shared.weights import freeze

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of RGB in [0, 1]."""

Grids = Mapping[str, tuple[int, int]]
"""(h, w) of a decoder's inputs, by name."""


def require_task(name: str, task: Task, wanted: str) -> None:
    """Refuse a task that a model was not made for.

    Raises:
        FcbenchError: it is another one.
    """
    if task.name != wanted:
        raise FcbenchError(
            f"task model {name} was trained for {wanted}, the task is {task.name}: "
            f"use it with --task {wanted}, or another task model"
        )


def pixels(images: Tensor, size_px: tuple[int, int], normalization: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """Resize uint8 images [B, 3, H, W] as the official processors do (bicubic, antialiased, rounded), normalize them.

    Args:
        images: RGB.
        size_px: (H', W') of the result, float32 [B, 3, H', W'].
        normalization: mean and deviation of RGB in [0, 1].
    """
    if tuple(images.shape[-2:]) != size_px:
        images = tv.resize(images, list(size_px), InterpolationMode.BICUBIC)
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) * 255 for v in normalization)
    return (images.float() - mean) / std


def spec_of(name: str, channels: int, grid: tuple[int, int], image_px: tuple[int, int]) -> FeatureSpec:
    """A decoder's input; its stride is in pixels of the image that came, rounded, at least 1.

    >>> spec_of("tokens", 384, (37, 37), (128, 128)).stride_px
    3
    """
    return FeatureSpec(name, channels, max(1, round(image_px[0] / grid[0])))


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, h w, C] as a map [B, C, h, w]."""
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous()


class OwnEncoder:
    """The encoder of a task model, frozen, for images of one size (a `fcbench.core.features.Encoder`).

    Args:
        name: the task model's, as typed.
        specs: the decoder's inputs.
        grids: (h, w) of each for images of ``image_px``.
        module: all its parameters.
        run: uint8 images [B, 3, H, W] to the inputs, in the order of the specs.
        weights: where they came from.
        image_px: (H, W) of the images.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        specs: Sequence[FeatureSpec],
        grids: Grids,
        module: nn.Module,
        run: Callable[[Tensor], Sequence[Tensor]],
        weights: WeightsInfo,
        image_px: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.name, self.weights, self.image_px = name, weights, image_px
        self.specs: Mapping[str, FeatureSpec] = {s.name: s for s in specs}
        self.groups: Mapping[str, tuple[str, ...]] = {}
        self.grids = dict(grids)
        self.default_split = specs[0].name
        self.module = freeze(module).to(device)
        self._run, self._device = run, device

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """The decoder's inputs for uint8 images [B, 3, H, W].

        Raises:
            FcbenchError: an input that the decoder does not have, or images of another size.
        """
        for split in splits:
            if split not in self.specs:
                what = f"split point of {self.name}"
                raise FcbenchError(registry.unknown(what, split, self.specs))
        came = (int(images.shape[-2]), int(images.shape[-1]))
        if came != self.image_px:
            raise FcbenchError(
                f"task model {self.name} was built for images of {self.image_px[0]}x{self.image_px[1]} px, "
                f"{came[0]}x{came[1]} came: give one --image-size to the whole run"
            )
        with torch.no_grad():
            maps = dict(zip(self.specs, self._run(images.to(self._device))))
        return Features({n: maps[n].float().contiguous() for n in self.specs if n in splits})


class FrozenDecoder(nn.Module):
    """A decoder that no training changes: no gradients of its own, always in evaluation mode.

    ``train()`` sets the flag ``training`` alone, by which a loss may sample; batch norms and dropouts inside never
    leave evaluation mode. Gradients flow to its inputs.

    Args:
        name: the task model's, as typed.
        specs: its inputs.
        grids: (h, w) of each.
    """

    def __init__(self, name: str, specs: Sequence[FeatureSpec], grids: Grids) -> None:
        super().__init__()
        self.name = name
        self.wanted = {s.name: (s.channels, *grids[s.name]) for s in specs}

    def train(self, mode: bool = True) -> FrozenDecoder:
        """Set the flag, not the mode of what is inside."""
        self.training = mode
        return self

    def inputs(self, x: Mapping[str, Tensor]) -> list[Tensor]:
        """The input maps [B, C, h, w] in the decoder's order.

        Raises:
            FcbenchError: one is missing, or has other channels or another grid.
        """
        for name, want in self.wanted.items():
            if name not in x:
                raise FcbenchError(f"the decoder of {self.name} needs the map {name!r}; these came: {sorted(x)}")
            if (came := tuple(x[name].shape[1:])) != want:
                raise FcbenchError(f"the decoder of {self.name} takes {name} as (C, h, w) = {want}; {came} came")
        return [x[name] for name in self.wanted]


class OfficialModel:
    """A task model of others (a `fcbench.core.tasks.TaskModel`).

    Args:
        encoder: its own.
        decoder: its decoder, which is frozen here.
        device: where the decoder runs.
    """

    def __init__(self, encoder: OwnEncoder, decoder: FrozenDecoder, device: torch.device) -> None:
        self.name = encoder.name
        self.weights = encoder.weights
        self.encoder: Encoder = encoder
        self.inputs = tuple(encoder.specs)
        self.grids = dict(encoder.grids)
        for part in decoder.children():  # its own train() does not reach them
            freeze(part)
        self._decoder = decoder.eval().to(device)

    def head(self) -> nn.Module:
        """The frozen decoder; the same module each time, as nothing changes it."""
        return self._decoder
