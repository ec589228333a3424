"""What the tails of segmentation networks share: losses, predictions and probabilities from their logits."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.samples import VOID
from fcbench.core.tasks import ProbabilisticHead


class Segmenting(nn.Module, ProbabilisticHead):
    """A `fcbench.core.tasks.Tail` whose forward pass turns maps [B, C, h, w] by split point into logits [B, K, H, W] at
    the images' size."""

    def loss(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the pixels that are not void."""
        nll, target = self._nll(x, batch)
        return nll.sum() / (target != VOID).sum().clamp(min=1)

    def imitation_loss(self, x: Mapping[str, Tensor], uncoded: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats with its own probabilities for the uncoded maps."""
        with torch.no_grad():
            wanted = self(uncoded).softmax(1)
        return F.cross_entropy(self(x), wanted)

    def predict(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Class indices, int64 [B, H, W]."""
        return cast(Tensor, self(x)).max(dim=1).indices

    def log_likelihood(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Log-probability of each sample's mask in nats, summed over the pixels that are not void: [B]."""
        nll, _ = self._nll(x, batch)
        return -nll.flatten(1).sum(1)

    def _nll(self, x: Mapping[str, Tensor], batch: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-probability of each pixel's class, 0 where void, and the classes, [B, H, W]."""
        logits = self(x)
        target = batch.to(logits.device).long()
        return F.cross_entropy(logits, target, ignore_index=VOID, reduction="none"), target
