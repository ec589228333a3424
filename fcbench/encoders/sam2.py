"""``sam2:SIZE``: SAM 2's image encoder, from the official package.

Sizes are ``tiny`` (the default), ``small``, ``base_plus`` and ``large``; the weights are SAM 2.1's, or those of SAM 2.0
with ``-2.0`` after the size: ``sam2``, ``sam2:large``, ``sam2:tiny-2.0``. Only the image encoder is built, without
memory and mask decoder.

Split points, by stride:

* ``stage1`` to ``stage4``: outputs of the Hiera trunk's stages, strides 4 to 32 (together: ``trunk``);
* ``fpn1``, ``fpn2``, ``fpn3``: the pyramid of 256 channels that the official model calls ``backbone_fpn``, strides 4, 8
  and 16 (together: ``fpn``);
* ``vision_features``: the official model's output of that name, which is ``fpn3``.

The official predictor resizes every image to 1024x1024 (``--image-size 1024``); here the encoder gets the image at the
given size, and the trunk itself interpolates position embeddings. Sides that are not multiples of 32 are padded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose
from hydra.utils import instantiate
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2.modeling.backbones.image_encoder import ImageEncoder
from torch import Tensor

from fcbench.core.errors import FcbenchError
from fcbench.core.features import EncoderPlugin, FeatureSpec
from fcbench.encoders.shared.nano import stages
from fcbench.encoders.shared.padded import PaddedEncoder, variant_of
from fcbench.encoders.shared.weights import hub_file, load_state, load_weights, seeded, weights_file

SIZES = ("tiny", "small", "base_plus", "large")
REPOS = {"2.1": "facebook/sam2.1-hiera-", "2.0": "facebook/sam2-hiera-"}
VARIANTS = {
    f"{size}{suffix}": REPOS[version] + size.replace("_", "-")
    for suffix, version in (("", "2.1"), ("-2.1", "2.1"), ("-2.0", "2.0"))
    for size in SIZES
}
"""What may follow the colon -> the official model on the hub, the default first."""
PREFIX = "image_encoder."
ONLY_IN_2_1 = "no_obj_embed_spatial"
"""A tensor in every SAM 2.1 checkpoint and in no 2.0 one; the image encoders of both have the same shapes."""
TRUNK = ("stage1", "stage2", "stage3", "stage4")
FPN = ("fpn1", "fpn2", "fpn3")


def build_image_encoder(config: str) -> ImageEncoder:
    """The untrained image encoder of one of the official package's configurations."""
    encoder: ImageEncoder = instantiate(compose(config_name=config).model.image_encoder)
    return encoder


def specs_of(module: ImageEncoder) -> dict[str, FeatureSpec]:
    """Split points of an image encoder, fine to coarse."""
    trunk = zip(TRUNK, reversed(module.trunk.channel_list), (4, 8, 16, 32))
    width = module.neck.d_model
    pyramid = ((*FPN, "vision_features"), (width,) * 4, (4, 8, 16, 16))
    found = [FeatureSpec(*s) for s in (*trunk, *zip(*pyramid))]
    return {s.name: s for s in sorted(found, key=lambda s: s.stride_px)}


class Sam2Encoder(PaddedEncoder):
    """A frozen SAM 2 image encoder."""

    module: ImageEncoder
    groups = {"fpn": FPN, "trunk": TRUNK}
    multiple_px = 32  # the trunk tiles position embeddings by 8 tokens of 4 pixels

    def run(self, x: Tensor, split_points: Sequence[str]) -> Mapping[str, Tensor]:
        in_trunk = set(split_points) <= set(TRUNK)
        n = 1 + max(TRUNK.index(s) for s in split_points) if in_trunk else len(TRUNK)
        found = stages(self.module.trunk, x, n)
        maps = dict(zip(TRUNK, found))
        if in_trunk:
            return maps
        levels, _ = self.module.neck(found)
        pyramid = dict(zip(FPN, levels[: len(levels) - self.module.scalp]))
        return maps | pyramid | {"vision_features": pyramid[FPN[-1]]}


def _image_encoder_state(path: Path, name: str, variant: str) -> dict[str, Tensor]:
    state = load_state(path)
    inside = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not inside:
        return state
    is_whole = len(inside) < len(state)
    found = "2.1" if ONLY_IN_2_1 in state else "2.0"
    if is_whole and not VARIANTS[variant].startswith(REPOS[found]):
        size = variant.partition("-")[0]
        other = size if found == "2.1" else f"{size}-{found}"
        raise FcbenchError(f"weights {path} are SAM {found}'s, but {name} is not: use --encoder sam2:{other}")
    return inside


@dataclass(frozen=True)
class Plugin(EncoderPlugin):
    """SAM 2's image encoders."""

    variants: str = "tiny (default), small, base_plus, large: SAM 2.1; with the suffix -2.0 SAM 2.0: tiny-2.0"

    def build(self, variant: str, weights: str | None, device: torch.device) -> Sam2Encoder:
        name = f"sam2:{variant}" if variant else "sam2"
        variant = variant_of("sam2", variant, VARIANTS)
        repo = VARIANTS[variant]
        config, file_name = HF_MODEL_ID_TO_FILENAMES[repo]
        file = weights_file(weights, lambda: (hub_file(name, repo, [file_name]), f"hub:{repo}"))
        state = _image_encoder_state(file[0], name, variant) if file else None
        with seeded():
            module = build_image_encoder(config)
        return Sam2Encoder(name, module, specs_of(module), load_weights(module, name, file, state), device)


PLUGIN = Plugin()
