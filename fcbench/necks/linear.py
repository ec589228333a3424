"""The smallest neck: embedding and positions of the Transformer necks without any layer (affine in the features)."""

from collections.abc import Mapping, Sequence

from torch import nn

from fcbench.core.features import FeatureSpec
from fcbench.core.tasks import NeckPlugin
from fcbench.necks.shared.transformer import Embedding


class LinearPlugin(NeckPlugin):
    """The linear neck."""

    def build(self, specs: Sequence[FeatureSpec], shapes: Mapping[str, tuple[int, int]], width: int) -> nn.Module:
        return Embedding(specs, shapes, width)


PLUGIN = LinearPlugin()
