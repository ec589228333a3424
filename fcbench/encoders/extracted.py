"""Whatever made the features of a folder with ``manifest.json`` (`run --features FOLDER`); it is not run.

Split points are the maps of the manifest, and ``NAME.global`` for tokens without a place; all are coded as one sample.

Tails: features, of all maps together: what arrives is compared with what was sent, and handed to ``--metric-command``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fcbench.core.errors import FcbenchError
from fcbench.core.features import Encoder, EncoderPlugin, Features, WeightsInfo, require_split_points
from fcbench.core.manifest import Manifest


class AsTheyArrive(nn.Module):
    """A `fcbench.core.tasks.Tail` without layers: it predicts the maps that it reads."""

    label_names = ()

    def predict(self, x: Mapping[str, Tensor], batch: object) -> Mapping[str, Tensor]:
        """The maps [B, C, h, w]."""
        return x

    def loss(self, x: Mapping[str, Tensor], batch: object) -> Tensor:
        """There is nothing to train through."""
        raise FcbenchError("extracted features have no network to train a codec through: use --objective mse")

    imitation_loss = loss


class Extracted(Encoder):
    """Takes the samples of the data set of this name apart."""

    def __init__(self, manifest: Manifest) -> None:
        self.name, self.module = f"extracted:{manifest.name}", nn.Module().eval()
        self.specs, self._shapes = manifest.specs, manifest.shapes
        self.groups = {"all": tuple(self.specs)} if len(self.specs) > 1 else {}
        self.default_split_point = next(iter([*self.groups, *self.specs]))
        self.weights = WeightsInfo(manifest.sha256, f"manifest:{manifest.name}")
        self.tails = {"features": (self.default_split_point,)}

    def grid(self, split_point: str, image_px: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a map."""
        _, h, w = self._shapes[split_point]
        return h, w

    def __call__(self, images: Tensor, split_points: Sequence[str]) -> Features:
        """Maps [B, C, h, w] of samples [B, n, 1, 1]."""
        require_split_points(self.name, self.specs, split_points)
        parts = images.flatten(1).split([c * h * w for c, h, w in self._shapes.values()], 1)
        maps = {n: p.reshape(-1, *shape) for p, (n, shape) in zip(parts, self._shapes.items())}
        return Features({n: maps[n].contiguous() for n in self.specs if n in split_points})

    def tail(self, task: str, split_point: str, image_px: tuple[int, int]) -> nn.Module:
        """Reads all maps."""
        return AsTheyArrive()


class Plugin(EncoderPlugin):
    """Features of others."""

    def build(self, variant: str, weights: str | None, device: torch.device) -> Extracted:
        if weights is None:
            raise FcbenchError(
                "extracted features are read from a folder, no encoder makes them: give --features FOLDER"
            )
        return Extracted(Manifest.read(Path(weights)))


PLUGIN = Plugin()
