"""The embedded encoders: the SAM 2 package's own Hiera class at a small width, weights shipped with fcbench.

They are ours, trained on procedural scenes by ``benchmarks/embedded``: never SAM 2 or Hiera results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.features import Features, FeatureSpec, WeightsInfo
from fcbench.encoders.shared.hieradet import stages
from fcbench.encoders.shared.weights import (
    RANDOM_ORIGIN,
    file_sha256,
    freeze,
    load_into,
    load_state,
    seeded,
    state_sha256,
)

EMBED_DIM = 32
STAGES = (1, 2, 6, 1)
UNIT_PX = 32
"""Side of a mask unit: one window of every windowed stage, one token of the last."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SPECS: dict[str, FeatureSpec] = {
    f"stage{i + 1}": FeatureSpec(f"stage{i + 1}", EMBED_DIM << i, 4 << i) for i in range(len(STAGES))
}
FOLDER = Path(__file__).resolve().parents[2] / "weights"


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


class NanoEncoder:
    """A frozen embedded encoder (a `fcbench.core.features.Encoder`)."""

    specs: Mapping[str, FeatureSpec] = SPECS
    groups: Mapping[str, tuple[str, ...]] = {"trunk": tuple(SPECS)}
    default_split = "stage3"

    def __init__(self, name: str, module: Hiera, weights: WeightsInfo, device: torch.device) -> None:
        self.name, self.weights, self.device = name, weights, device
        self.module = freeze(module).to(device)
        self._mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=device).view(3, 1, 1)

    def __call__(self, images: Tensor, splits: Sequence[str]) -> Features:
        """Features of uint8 images [B, 3, H, W]; sizes that 32 does not divide are padded, the maps cropped."""
        for split in splits:
            if split not in SPECS:
                raise FcbenchError(registry.unknown(f"split point of {self.name}", split, SPECS))
        height, width = images.shape[-2:]
        x = (images.to(self.device).float() / 255 - self._mean) / self._std
        x = F.pad(x, (0, -width % UNIT_PX, 0, -height % UNIT_PX), mode="replicate")
        deepest = max(list(SPECS).index(split) for split in splits)
        with torch.inference_mode():
            outputs = dict(zip(SPECS, stages(self.module, x, deepest + 1)))
        maps = {}
        for name in (n for n in SPECS if n in splits):
            stride = SPECS[name].stride_px
            maps[name] = outputs[name][..., : -(-height // stride), : -(-width // stride)].clone(
                memory_format=torch.contiguous_format
            )
        return Features(maps)


@dataclass(frozen=True, slots=True)
class NanoPlugin:
    """See `fcbench.core.features.EncoderPlugin`."""

    name: str

    def build(self, variant: str, weights: str | None, device: torch.device) -> NanoEncoder:
        """Build with the embedded weights, those of a file, or random ones where that was asked for."""
        if variant:
            raise FcbenchError(f"encoder {self.name} has no variants (got {self.name}:{variant})")
        with seeded():
            module = build_trunk()
        if weights == "random":
            info = WeightsInfo(state_sha256(module), RANDOM_ORIGIN)
            return NanoEncoder(self.name, module, info, device)
        path = Path(weights) if weights else FOLDER / f"{self.name}.safetensors"
        state = {k: v.float() for k, v in load_state(path).items()}
        load_into(module, state, f"weights {path}", self.name)
        origin = f"file:{path.name}" if weights else "embedded"
        return NanoEncoder(self.name, module, WeightsInfo(file_sha256(path), origin), device)
