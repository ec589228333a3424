"""The least neck: the embedding and positions of the Transformer necks, and no layer (affine in the features)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fcbench.core.features import FeatureSpec
from fcbench.core.tasks import NeckPlugin
from fcbench.necks.shared.transformer import Embedding


class LinearPlugin(NeckPlugin):
    """Plug-in of the linear neck."""

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        """A neck from maps (dict of [B, C, h, w]) to [B, D, h, w].

        Raises:
            FcbenchError: no split point, a missing shape, a width below 1.
        """
        return Embedding(specs, shapes, width)


PLUGIN = LinearPlugin()
