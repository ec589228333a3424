"""The embedded task models: a small convolutional encoder and a decoder each, weights shipped with fcbench.

They are ours, trained on procedural scenes by ``benchmarks/embedded/task_models.py``: never results of
published models.

    image [B, 3, H, W] -> trunk -> "own" [B, 96, H/16, W/16], standardized -> | frozen: blocks, the task's head |
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.tasks import Head, ProbabilisticHead, ScaledHead, Task, TaskModel
from fcbench.encoders.shared.weights import RANDOM_ORIGIN, file_sha256, load_into, load_state, seeded, state_sha256
from fcbench.taskmodels.shared.official import IMAGENET, FrozenDecoder, OfficialModel, OwnEncoder, require_task
from fcbench.tasks.shared.dense import n_doublings

WIDTH = 96
STRIDE_PX = 16
SPEC = FeatureSpec("own", WIDTH, STRIDE_PX)
CHANNELS = (32, 80, 128)
BLOCKS = (2, 2, 3)
KERNELS = (3, 3, 5)
FOLDER = Path(__file__).resolve().parents[2] / "weights"


class Block(nn.Module):
    """Depthwise convolution, batch norm, 1x1 to three times the channels, GELU, 1x1, with a shortcut.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022 (with another norm).
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w], the same shape."""
        out: Tensor = self.project(F.gelu(self.expand(self.norm(self.mix(x)))))
        return x + out


class Trunk(nn.Module):
    """The encoder, 0.5 M parameters: three stages at strides 4, 8, 16; its outputs are standardized."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS[0], 4, 4)]
        for i, (c, n, kernel) in enumerate(zip(CHANNELS, BLOCKS, KERNELS)):
            if i:
                layers += [nn.BatchNorm2d(CHANNELS[i - 1]), nn.Conv2d(CHANNELS[i - 1], c, 2, 2)]
            layers += [Block(c, kernel) for _ in range(n)]
        layers += [nn.BatchNorm2d(CHANNELS[-1]), nn.Conv2d(CHANNELS[-1], WIDTH, 1)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(WIDTH, affine=False))
        mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in IMAGENET)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to [B, 96, h, w]; sizes that 16 does not divide are padded."""
        x = (images.float() - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        height, width = x.shape[-2:]
        pad = (0, -width % STRIDE_PX, 0, -height % STRIDE_PX)
        x = F.pad(x, pad, mode="replicate")
        out: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return out


class Decoder(nn.Module):
    """Blocks, then one of the tasks' heads.

    Args:
        blocks: [B, 96, h, w] to what the head reads, [B, D, h, w].
        head: of the task.
    """

    def __init__(self, blocks: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """What the head reads, [B, D, h, w]."""
        out: Tensor = self.blocks(x)
        return out


class NanoModel(nn.Module):
    """Encoder and decoder, as they are trained together."""

    def __init__(self, trunk: Trunk, decoder: Decoder) -> None:
        super().__init__()
        self.trunk = trunk
        self.decoder = decoder
        self.to(memory_format=torch.channels_last)


class NanoDecoder(FrozenDecoder):
    """A trained `Decoder`, frozen (a `fcbench.core.tasks.Head` on maps by name)."""

    def __init__(self, name: str, grid: tuple[int, int], decoder: Decoder) -> None:
        super().__init__(name, [SPEC], {SPEC.name: grid})
        self.decoder = decoder

    def _read(self, x: Mapping[str, Tensor]) -> tuple[Any, Tensor]:
        """The task's head and what it reads."""
        return self.decoder.head, self.decoder(*self.inputs(x))

    def loss(self, x: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The task's loss, scalar."""
        head, read = self._read(x)
        return cast(Head, head).loss(read, batch)

    def predict(self, x: Mapping[str, Tensor], batch: Any) -> Any:
        """What the task's own head predicts: see the task's module."""
        head, read = self._read(x)
        return cast(Head, head).predict(read, batch)


class ProbabilisticNanoDecoder(NanoDecoder, ProbabilisticHead):
    """A decoder whose head states probabilities."""

    def log_likelihood(self, x: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Log-probability of each sample's target in nats: [B]."""
        head, read = self._read(x)
        return cast(ProbabilisticHead, head).log_likelihood(read, batch)


class ScaledNanoDecoder(NanoDecoder, ScaledHead):
    """A decoder whose head states a density with a scale."""

    def log_density(self, x: Mapping[str, Tensor], batch: Any, scale: float) -> Tensor:
        """Log-density of each sample's target in nats: [B]."""
        head, read = self._read(x)
        return cast(ScaledHead, head).log_density(read, batch, scale)


class NanoPlugin(ABC):
    """An embedded task model (a `fcbench.core.tasks.TaskModelPlugin`).

    Args:
        name: the plug-in's; its weights are ``weights/taskmodel_NAME.safetensors``.
        task: the task that it was trained for.
    """

    def __init__(self, name: str, task: str) -> None:
        self.name, self.task = name, task

    @property
    def path(self) -> Path:
        """The embedded weights."""
        return FOLDER / f"taskmodel_{self.name}.safetensors"

    @abstractmethod
    def facts(self, task: Any) -> dict[str, Any]:
        """What a decoder must know of its training data, as JSON can hold it; kept beside its weights."""

    def make_blocks(self) -> nn.Module:
        """What stands between the encoder's features and the head, untrained."""
        return nn.Sequential(Block(WIDTH, 5), Block(WIDTH, 5))

    @abstractmethod
    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        """The task's head, untrained, as the facts describe it."""

    @abstractmethod
    def misfit(self, facts: Mapping[str, Any], task: Any) -> str:
        """Why a decoder of these facts cannot be used on a task; empty where it can."""

    def make(self, facts: Mapping[str, Any], image_px: tuple[int, int]) -> tuple[NanoModel, tuple[int, int]]:
        """Encoder and decoder, untrained, and the grid (h, w) between them.

        Raises:
            FcbenchError: images that are too small.
        """
        grid = -(-image_px[0] // STRIDE_PX), -(-image_px[1] // STRIDE_PX)
        if min(image_px) < 48 or n_doublings(grid, image_px) != 2:
            raise FcbenchError(
                f"task model {self.name} was given images of {image_px[0]}x{image_px[1]} px: 48x48 is the least. "
                "Give a larger --image-size"
            )
        with seeded():
            head = self.make_head(facts, grid, image_px)
            trunk = Trunk()
            return NanoModel(trunk, Decoder(self.make_blocks(), head)), grid

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build with the embedded weights, those of a file, or random ones where that was asked for.

        Raises:
            FcbenchError: a variant, another task, a data set with other classes or words, weights that do not fit.
        """
        if variant:
            raise FcbenchError(f"task model {self.name} has no variants (got {self.name}:{variant})")
        require_task(self.name, task, self.task)
        if weights == "random":
            model, grid = self.make(self.facts(task), image_px)
            info = WeightsInfo(state_sha256(model), RANDOM_ORIGIN)
            return self._wrap(model, grid, info, image_px, device)
        path = Path(weights) if weights else self.path
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_state(path).items()}
        facts = read_facts(path)
        if reason := self.misfit(facts, task):
            raise FcbenchError(f"task model {self.name} cannot be used on this data set: {reason}")
        model, grid = self.make(facts, image_px)
        load_into(model, state, f"weights {path}", self.name)
        origin = f"file:{path.name}" if weights else "embedded"
        info = WeightsInfo(file_sha256(path), origin)
        return self._wrap(model, grid, info, image_px, device)

    def _wrap(
        self,
        model: NanoModel,
        grid: tuple[int, int],
        info: WeightsInfo,
        image_px: tuple[int, int],
        device: torch.device,
    ) -> TaskModel:
        encoder = OwnEncoder(
            self.name,
            [SPEC],
            {SPEC.name: grid},
            model.trunk,
            lambda images: (model.trunk(images),),
            info,
            image_px,
            device,
        )
        decoder = ScaledNanoDecoder if isinstance(model.decoder.head, ScaledHead) else ProbabilisticNanoDecoder
        return OfficialModel(encoder, decoder(self.name, grid, model.decoder), device)


def read_facts(path: Path) -> dict[str, Any]:
    """What `NanoPlugin.facts` kept beside the weights.

    Raises:
        FcbenchError: the file holds none.
    """
    from safetensors import safe_open

    found = None
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("facts")
    if found is None:
        raise FcbenchError(
            f"weights {path} do not say what their decoder knows (classes, words, depth scale): "
            "give a .safetensors file that benchmarks.embedded.task_models wrote"
        )
    facts: dict[str, Any] = json.loads(found)
    return facts
