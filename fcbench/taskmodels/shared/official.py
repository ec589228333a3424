"""Base of third-party task models: their own encoder and their frozen decoder, both for one image size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.tasks import Head, Task, TaskModel
from fcbench.encoders.shared.padded import FrozenEncoder, normalized
from fcbench.encoders.shared.weights import freeze

Grids = Mapping[str, tuple[int, int]]  # (h, w) of a decoder's inputs, by name


def require_task(name: str, task: Task, expected: str) -> None:
    """Refuse a task that a model was not trained for."""
    if task.name != expected:
        raise FcbenchError(
            f"task model {name} was trained for {expected}, got task {task.name}: "
            f"use it with --task {expected}, or another task model"
        )


def pixels(images: Tensor, size_px: tuple[int, int], normalization: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """uint8 images [B, 3, H, W] resized as by the official processors (bicubic, antialiased, rounded), and normalized.

    `images`: RGB. `size_px`: (H', W') of the result, float32 [B, 3, H', W']. `normalization`: mean and deviation of RGB
    in [0, 1].
    """
    if tuple(images.shape[-2:]) != size_px:
        images = tv.resize(images, list(size_px), InterpolationMode.BICUBIC)
    return normalized(images, normalization)


def spec_of(name: str, channels: int, grid: tuple[int, int], image_px: tuple[int, int]) -> FeatureSpec:
    """A decoder's input; its stride is in pixels of the run's images, rounded, at least 1.

    >>> spec_of("tokens", 384, (37, 37), (128, 128)).stride_px
    3
    """
    return FeatureSpec(name, channels, max(1, round(image_px[0] / grid[0])))


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, h w, C] as a map [B, C, h, w]."""
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous()


class OwnEncoder(FrozenEncoder):
    """The encoder of a task model, for images of one size.

    `name`: the task model's, as typed. `specs`: the decoder's inputs. `module`: all its parameters. `run`: computes the
    inputs, in the order of the specs, from uint8 images [B, 3, H, W]. `weights`: their origin. `image_px`: (H, W) of
    the images. `device`: where it runs.
    """

    def __init__(
        self,
        name: str,
        specs: Sequence[FeatureSpec],
        module: nn.Module,
        run: Callable[[Tensor], Sequence[Tensor]],
        weights: WeightsInfo,
        image_px: tuple[int, int],
        device: torch.device,
    ) -> None:
        super().__init__(name, module, {s.name: s for s in specs}, weights, device)
        self.default_split_point = specs[0].name
        self._run, self._image_px = run, image_px

    def maps(self, images: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        size_px = (int(images.shape[-2]), int(images.shape[-1]))
        if size_px != self._image_px:
            raise FcbenchError(
                f"task model {self.name} was built for images of {self._image_px[0]}x{self._image_px[1]} px, "
                f"got {size_px[0]}x{size_px[1]}: give one --image-size to the whole run"
            )
        return dict(zip(self.specs, self._run(images)))


class FrozenDecoder(nn.Module, Head):
    """A decoder that no training changes: no gradients of its own, always in evaluation mode.

    ``train()`` only sets the flag ``training``, by which a loss may sample; batch norms and dropouts inside stay in
    evaluation mode. Gradients flow to its inputs. `name`: the task model's, as typed. `specs`: its inputs. `grids`:
    (h, w) of each.
    """

    def __init__(self, name: str, specs: Sequence[FeatureSpec], grids: Grids) -> None:
        super().__init__()
        self.name = name
        self.shapes = {s.name: (s.channels, *grids[s.name]) for s in specs}

    def train(self, mode: bool = True) -> FrozenDecoder:
        """Set the flag, but not the mode of the modules inside."""
        self.training = mode
        return self

    def inputs(self, x: Mapping[str, Tensor]) -> list[Tensor]:
        """The input maps [B, C, h, w] in the decoder's order."""
        for name, expected in self.shapes.items():
            if name not in x:
                raise FcbenchError(f"decoder of {self.name} needs the map {name!r}, got {sorted(x)}")
            if (shape := tuple(x[name].shape[1:])) != expected:
                raise FcbenchError(f"decoder of {self.name} expects {name} of shape {expected}, got {shape}")
        return [x[name] for name in self.shapes]


class OfficialModel(TaskModel):
    """A third-party task model. `encoder`: its own. `decoder`: its decoder, which is frozen here."""

    def __init__(self, encoder: OwnEncoder, decoder: FrozenDecoder) -> None:
        self.name, self.weights, self.inputs = encoder.name, encoder.weights, tuple(encoder.specs)
        self.encoder = encoder
        for part in decoder.children():  # its own train() does not set their mode
            freeze(part)
        self._decoder = decoder.eval().to(encoder.device)

    def head(self) -> nn.Module:
        return self._decoder
