"""The embedded encoders: the SAM 2 package's own Hiera class at a small width, with weights shipped with fcbench.

They were trained on procedural scenes by ``benchmarks/embedded``: their results are not those of SAM 2 or Hiera.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.features import EncoderPlugin, FeatureSpec
from fcbench.encoders.shared.padded import PaddedEncoder
from fcbench.encoders.shared.weights import load_weights, seeded, weights_file


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


EMBED_DIM = 32
STAGES = (1, 2, 6, 1)
UNIT_PX = 32  # Side of a mask unit: one window of every windowed stage, one token of the last
SPECS: dict[str, FeatureSpec] = {
    f"stage{i + 1}": FeatureSpec(f"stage{i + 1}", EMBED_DIM << i, 4 << i) for i in range(len(STAGES))
}
FOLDER = Path(__file__).resolve().parents[2] / "weights"


def build_trunk() -> Hiera:
    """Untrained trunk of 2.0 M parameters: stages of 32, 64, 128, 256 channels at strides 4, 8, 16, 32. Stage 3 attends
    to the whole image, the others within a mask unit; blocks that pool lag by a stage, as in Hiera."""
    first_global = STAGES[0] + STAGES[1] + 1  # the block that pools into stage 3 sees stage 2's windows
    return Hiera(
        embed_dim=EMBED_DIM,
        num_heads=1,
        stages=STAGES,
        window_spec=(8, 4, 2, 1),
        window_pos_embed_bkg_spatial_size=(8, 8),
        global_att_blocks=tuple(range(first_global, sum(STAGES[:3]))),
    )


class NanoEncoder(PaddedEncoder):
    """A frozen embedded encoder."""

    module: Hiera
    groups = {"trunk": tuple(SPECS)}
    multiple_px = UNIT_PX

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        deepest = max(list(SPECS).index(s) for s in split_points)
        return dict(zip(SPECS, stages(self.module, x, deepest + 1)))


@dataclass(frozen=True, slots=True)
class NanoPlugin(EncoderPlugin):
    """An embedded encoder, by name."""

    name: str

    def build(self, variant: str, weights: str | None, device: torch.device) -> NanoEncoder:
        if variant:
            raise FcbenchError(f"encoder {self.name} has no variants (got {self.name}:{variant})")
        with seeded():
            module = build_trunk()
        file = weights_file(weights, lambda: (FOLDER / f"{self.name}.safetensors", "embedded"))
        return NanoEncoder(self.name, module, SPECS, load_weights(module, self.name, file), device)
