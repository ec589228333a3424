"""``hiera:SIZE``, ``hiera:SIZE.TAG``: Hiera, the general twin of SAM 2's trunk, from timm.

Sizes are ``tiny`` (the default), ``small``, ``base``, ``base_plus``, ``large`` and ``huge``. Tags are ``mae`` (the
default: masked-autoencoder pretraining alone) and ``mae_in1k_ft_in1k`` (then fine-tuned to classify ImageNet-1k):
``hiera``, ``hiera:base_plus``, ``hiera:tiny.mae_in1k_ft_in1k``.

Split points are ``stage1`` to ``stage4``, strides 4 to 32; together: ``trunk``.

Hiera was trained at 224x224. At another size its position embeddings are resized: timm cannot do that, and bicubic
interpolation alone shifts the pattern that they repeat in every mask unit against the units (arXiv 2311.05613). So
they are decomposed as in that paper and in SAM 2's trunk: the mean mask unit is repeated, the rest interpolated. Sides
that are not multiples of a mask unit, 32 pixels, are padded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.features import EncoderPlugin, WeightsInfo
from fcbench.encoders.shared.padded import PaddedEncoder, variant_of
from fcbench.encoders.shared.timm_weights import info_of, load, specs_of
from fcbench.encoders.shared.weights import freeze, seeded

SIZES = ("tiny", "small", "base", "base_plus", "large", "huge")
TAGS = ("mae", "mae_in1k_ft_in1k")
VARIANTS = {
    **{size: f"hiera_{size}_224.{TAGS[0]}" for size in SIZES},
    **{f"{size}.{tag}": f"hiera_{size}_224.{tag}" for size in SIZES for tag in TAGS},
}
"""What may follow the colon -> timm's model, the default first."""
NATIVE_PX = (224, 224)
TOKEN_PX = 4
UNIT_TOKENS = 8  # Side of a mask unit
POSITIONS = "model.pos_embed"
N_SIZES_KEPT = 8


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings for another image size: the mean mask unit repeated, the rest interpolated.

    `positions`: [1, N, C] of old h times w tokens. `old`: (h, w) [tokens], multiples of a mask unit. `new`: (h, w)
    [tokens], multiples of a mask unit. Returns [1, N', C] of new h times w tokens; unchanged if the size
    is the same.

    References:
        Bolya et al., Window Attention is Bugged: How not to Interpolate Position Embeddings, arXiv 2311.05613.
    """
    if old == new:
        return positions
    u = UNIT_TOKENS
    n_units = (old[0] // u, old[1] // u)
    maps = positions.transpose(1, 2).unflatten(2, old)  # [1, C, h, w]
    unit = maps.unflatten(2, (-1, u)).unflatten(4, (-1, u)).mean((2, 4))  # [1, C, u, u]
    rest = maps - unit.tile(n_units)
    rest = F.interpolate(rest, size=new, mode="bicubic", antialias=True)
    return (rest + unit.tile((new[0] // u, new[1] // u))).flatten(2).transpose(1, 2)


class HieraEncoder(PaddedEncoder):
    """A frozen Hiera."""

    groups = {"trunk": ("stage1", "stage2", "stage3", "stage4")}
    multiple_px = UNIT_TOKENS * TOKEN_PX

    def __init__(
        self, name: str, timm_name: str, module: nn.Module, weights: WeightsInfo, device: torch.device
    ) -> None:
        specs = specs_of(info_of(module).get_dicts())
        super().__init__(name, module, specs, weights, device)
        self._timm_name = timm_name
        self._resized = lru_cache(N_SIZES_KEPT)(self._resize)

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        size_px = (int(x.shape[-2]), int(x.shape[-1]))
        module = self.module if size_px == NATIVE_PX else self._resized(size_px)
        n = 1 + max(list(self.specs).index(split) for split in split_points)
        found = module.model.forward_intermediates(  # type: ignore[union-attr,operator]
            x, indices=list(range(n)), intermediates_only=True
        )
        return dict(zip(self.specs, found))

    def _resize(self, size_px: tuple[int, int]) -> nn.Module:
        state = self.module.state_dict()
        old, new = ((h // TOKEN_PX, w // TOKEN_PX) for h, w in (NATIVE_PX, size_px))
        state[POSITIONS] = resize_positions(state[POSITIONS], old, new)
        with torch.device("meta"):  # shapes only: the state provides the tensors
            module = timm.create_model(self._timm_name, features_only=True, img_size=size_px)
        module.load_state_dict(state, assign=True)
        return freeze(module)


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """The Hiera models of timm."""

    variants: str = (
        "tiny (default), small, base, base_plus, large, huge; with the suffix .mae (default) or .mae_in1k_ft_in1k"
    )

    def build(self, variant: str, weights: str | None, device: torch.device) -> HieraEncoder:
        name = f"hiera:{variant}" if variant else "hiera"
        timm_name = VARIANTS[variant_of("hiera", variant, VARIANTS)]
        with seeded():
            module = timm.create_model(timm_name, features_only=True)
        info = load(name, timm_name, module, weights)
        return HieraEncoder(name, timm_name, module, info, device)


PLUGIN = Plugin()
