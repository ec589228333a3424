"""The trunk of the embedded encoders: the SAM 2 package's own Hiera class, at a small width."""

from __future__ import annotations

from sam2.modeling.backbones.hieradet import Hiera

EMBED_DIM = 32
STAGES = (1, 2, 6, 1)
UNIT_PX = 32
"""Side of a mask unit: one window of every windowed stage, one token of the last."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def build_trunk() -> Hiera:
    """Untrained trunk of 2.0 M parameters: stages of 32, 64, 128, 256 channels at strides 4, 8, 16, 32.

    Stage 3 attends to the whole image, the others within a mask unit; blocks that pool lag by a stage (Hiera).
    """
    first_global = STAGES[0] + STAGES[1] + 1  # the block that pools into stage 3 sees stage 2's windows
    return Hiera(
        embed_dim=EMBED_DIM,
        num_heads=1,
        stages=STAGES,
        window_spec=(8, 4, 2, 1),
        window_pos_embed_bkg_spatial_size=(8, 8),
        global_att_blocks=tuple(range(first_global, sum(STAGES[:3]))),
    )
