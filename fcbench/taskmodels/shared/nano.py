"""The embedded task models: a small convolutional encoder and a decoder each, with weights shipped with fcbench.

They were trained on procedural scenes by ``benchmarks/embedded/task_models.py``: their results are not those of
published models.

    image [B, 3, H, W] -> trunk -> "own" [B, 96, H/16, W/16], standardized -> | frozen: blocks, the task's head |
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec
from fcbench.core.tasks import Head, ProbabilisticHead, ScaledHead, Task, TaskModel, TaskModelPlugin
from fcbench.encoders.shared.padded import IMAGENET, normalized, pad_to
from fcbench.encoders.shared.weights import load_state, load_weights, seeded, weights_file
from fcbench.taskmodels.shared.official import FrozenDecoder, OfficialModel, OwnEncoder, require_task
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

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to [B, 96, h, w]; sizes that 16 does not divide are padded."""
        x = pad_to(normalized(images, IMAGENET), STRIDE_PX)
        out: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return out


class Decoder(nn.Module):
    """Blocks, then a task's head. `blocks`: [B, 96, h, w] to the head's input, [B, D, h, w]. `head`: of the task."""

    def __init__(self, blocks: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Input of the head, [B, D, h, w]."""
        out: Tensor = self.blocks(x)
        return out


class NanoModel(nn.Module):
    """Encoder and decoder, as trained together."""

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
        return self.decoder.head, self.decoder(*self.inputs(x))

    def loss(self, x: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The task's loss, scalar."""
        head, read = self._read(x)
        return cast(Head, head).loss(read, batch)

    def predict(self, x: Mapping[str, Tensor], batch: Any) -> Any:
        """Prediction of the task's own head: see the task's module."""
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
        head, read = self._read(x)
        return cast(ScaledHead, head).log_density(read, batch, scale)


class NanoPlugin(TaskModelPlugin, ABC):
    """An embedded task model. `name`: the plug-in's; its weights are ``weights/taskmodel_NAME.safetensors``. `task`:
    the task that it was trained for."""

    def __init__(self, name: str, task: str) -> None:
        self.name, self.task = name, task

    @property
    def path(self) -> Path:
        """The embedded weights."""
        return FOLDER / f"taskmodel_{self.name}.safetensors"

    @abstractmethod
    def facts(self, task: Any) -> dict[str, Any]:
        """Facts about its training data that a decoder needs, as JSON data; stored with its weights."""

    def make_blocks(self) -> nn.Module:
        """Layers between the encoder's features and the head, untrained."""
        return nn.Sequential(Block(WIDTH, 5), Block(WIDTH, 5))

    @abstractmethod
    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        """The task's head for the facts, untrained."""

    @abstractmethod
    def misfit(self, facts: Mapping[str, Any], task: Any) -> str:
        """Reason why a decoder with these facts cannot be used on a task; empty if it can."""

    def make(self, facts: Mapping[str, Any], image_px: tuple[int, int]) -> tuple[NanoModel, tuple[int, int]]:
        """Encoder and decoder, untrained, and the grid (h, w) between them."""
        grid = -(-image_px[0] // STRIDE_PX), -(-image_px[1] // STRIDE_PX)
        if min(image_px) < 48 or n_doublings(grid, image_px) != 2:
            raise FcbenchError(
                f"task model {self.name} needs images of at least 48x48 px, got {image_px[0]}x{image_px[1]}: "
                "give a larger --image-size"
            )
        with seeded():
            head = self.make_head(facts, grid, image_px)
            trunk = Trunk()
            return NanoModel(trunk, Decoder(self.make_blocks(), head)), grid

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        if variant:
            raise FcbenchError(f"task model {self.name} has no variants (got {self.name}:{variant})")
        require_task(self.name, task, self.task)
        file = weights_file(weights, lambda: (self.path, "embedded"))
        state = load_state(file[0]) if file else None
        facts = read_facts(file[0]) if file else self.facts(task)
        if reason := self.misfit(facts, task):
            raise FcbenchError(f"task model {self.name} cannot be used on this data set: {reason}")
        model, grid = self.make(facts, image_px)
        info = load_weights(model, self.name, file, state)
        encoder = OwnEncoder(self.name, [SPEC], model.trunk, lambda x: (model.trunk(x),), info, image_px, device)
        decoder = ScaledNanoDecoder if isinstance(model.decoder.head, ScaledHead) else ProbabilisticNanoDecoder
        return OfficialModel(encoder, decoder(self.name, grid, model.decoder))


def read_facts(path: Path) -> dict[str, Any]:
    """Facts that `NanoPlugin.facts` stored with the weights."""
    from safetensors import safe_open

    found = None
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("facts")
    if found is None:
        raise FcbenchError(
            f"weights {path} lack the facts about their decoder (classes, words, depth scale): "
            "give a .safetensors file that benchmarks.embedded.task_models wrote"
        )
    facts: dict[str, Any] = json.loads(found)
    return facts
