"""The SAM 2 package's Hiera, run no further than the stage that is asked for."""

from __future__ import annotations

from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor


def stages(trunk: Hiera, x: Tensor, n: int) -> list[Tensor]:
    """The first n stages' outputs [B, C, h, w], fine to coarse, of normalized images [B, 3, H, W].

    As `Hiera.forward` gives them; the blocks of later stages do not run.
    """
    x = trunk.patch_embed(x)
    x = x + trunk._get_pos_embed(x.shape[1:3])
    found: list[Tensor] = []
    for i, block in enumerate(trunk.blocks):
        if len(found) == n:
            break
        x = block(x)  # [B, h, w, C]
        if i in trunk.stage_ends:
            found.append(x.permute(0, 3, 1, 2))
    return found
