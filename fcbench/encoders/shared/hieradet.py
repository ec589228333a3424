"""The SAM 2 package's Hiera, run no further than the deepest requested stage."""

from __future__ import annotations

from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor


def stages(trunk: Hiera, x: Tensor, n: int) -> list[Tensor]:
    """Outputs [B, C, h, w] of the first n stages, fine to coarse, for normalized images [B, 3, H, W]. They are those of
    `Hiera.forward`; blocks of later stages do not run."""
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
