"""Encoders that send tokens: those of a grid as a map ``block1``, those without a place (class, registers) as another,
``block1.global``; ``tokens1`` is both."""

from collections.abc import Iterable, Mapping

from fcbench.core.features import GLOBAL, FeatureSpec
from fcbench.encoders.shared.padded import PaddedEncoder


def global_specs(blocks: Mapping[str, FeatureSpec]) -> dict[str, FeatureSpec]:
    """Split points of the tokens without a place beside the maps of blocks."""
    return {n + GLOBAL: FeatureSpec(n + GLOBAL, s.channels, 1, "BNC") for n, s in blocks.items()}


def token_groups(blocks: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names for the map and the tokens without a place of each block together."""
    return {n.replace("block", "tokens"): (n, n + GLOBAL) for n in blocks}


class TokenEncoder(PaddedEncoder):
    """A frozen encoder whose maps end in `GLOBAL` where they hold tokens without a place."""

    n_global: int = 0  # tokens without a place

    def grid(self, split_point: str, image_px: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a map for images of (H, W)."""
        return (1, self.n_global) if split_point.endswith(GLOBAL) else super().grid(split_point, image_px)
