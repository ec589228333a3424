"""``sam2_masks:VARIANT``: SAM 2's prompt encoder and mask decoder, prompted with one click per region.

Variants: ``tiny`` (default), ``small``, ``base_plus``, ``large``, of SAM 2.1. ``tiny@512`` runs the model at 512x512 px
instead of its own 1024x1024 (a multiple of 32): four times cheaper, but not the size it was trained at.

    image -> 1024x1024 -> image encoder -> image_embed [B, 256, 64, 64], high_res_1 [B, 64, 128, 128],
                                           high_res_0 [B, 32, 256, 256]
    class map -> regions -> one click each -> | frozen: prompt encoder, mask decoder | -> 3 masks, 3 scores per region

SAM 2 knows no classes: it is *promptable*, and prompts are taken from the **ground truth**, here as in the official
evaluation. A region is a connected component of one class of the class map; its prompt is one positive click on the
pixel deepest inside it. The `MAX_REGIONS` largest regions of an image with at least `MIN_REGION_SHARE` of its pixels
are prompted. The class of a region's mask is that of its click, so results must not be compared with those of models
that find the classes themselves.

*Prediction*: of a region's three masks the one with the highest predicted score (official for one click). Masks are
merged into a class map: each pixel gets the class of the mask with the largest logit there, even if that is below 0,
because the task has no class for "no mask". An image without a region gets class 0.

*Training loss* of a region, as in SAM 2: 20 focal + dice of the best of its three masks, and the absolute error of the
three predicted scores against the masks' IoU.

References:
    Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024; Kirillov et al., "Segment Anything", ICCV 2023.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from scipy import ndimage
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.samples import VOID
from fcbench.core.tasks import Task, TaskModel, TaskModelPlugin
from fcbench.encoders.shared.padded import IMAGENET, variant_of
from fcbench.encoders.shared.weights import hub_file, load_weights, seeded, weights_file
from fcbench.taskmodels.shared import official

SIDE_PX = 1024
COARSEST_PX = 32
REPOS = {v: f"facebook/sam2.1-hiera-{v.replace('_', '-')}" for v in ("tiny", "small", "base_plus", "large")}
CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
INPUTS = {"high_res_0": 4, "high_res_1": 8, "image_embed": 16}
"""The decoder's inputs and their strides in the model's own image, fine to coarse."""
MAX_REGIONS = 16
MIN_REGION_SHARE = 1e-3
FOCAL_WEIGHT = 20.0


# ----------------------------------------------------------------------------------------- regions
@dataclass(frozen=True, slots=True)
class Region:
    """A connected part of one class, and its prompt."""

    label: int  # class index
    click_px: tuple[int, int]  # (x, y) of the pixel deepest inside
    mask: np.ndarray  # bool [H, W]


def regions_of(classes: np.ndarray) -> list[Region]:
    """The regions of a class map [H, W] to prompt, largest first; see the module."""
    found: list[tuple[int, int, np.ndarray]] = []
    for label in np.unique(classes[classes != VOID]):
        parts, n_parts = ndimage.label(classes == label)
        sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)[1:]
        large = np.flatnonzero(sizes >= MIN_REGION_SHARE * classes.size)
        found += [(int(sizes[i]), int(label), parts == i + 1) for i in large]
    found.sort(key=lambda r: -r[0])  # stable: of equal sizes the lower class
    return [Region(c, deepest(mask), mask) for _, c, mask in found[:MAX_REGIONS]]


def deepest(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel of a mask [H, W] that is farthest from its outside, which includes the image's border.

    >>> deepest(np.ones((5, 7), bool))[1]
    2
    """
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(inside.argmax()), mask.shape)
    return int(x), int(y)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of each mask: [R, M]. `logits`: [R, M, H, W]. `target`: [R, 1, H, W], 0 or 1."""
    p = logits.sigmoid()
    both = (p * target).sum((-1, -2))
    return 1 - (2 * both + 1) / (p.sum((-1, -2)) + target.sum((-1, -2)) + 1)


def mask_loss(logits: Tensor, scores: Tensor, target: Tensor) -> Tensor:
    """Loss of each region, [R]; see the module. `logits`: [R, 3, H, W]. `scores`: [R, 3] predicted IoU. `target`: [R,
    1, H, W], 0 or 1."""
    wide = target.expand_as(logits)
    focal = sigmoid_focal_loss(logits, wide).mean((-1, -2))
    each = FOCAL_WEIGHT * focal + dice_loss(logits, target)
    said = logits.detach() > 0
    both = (said & (wide > 0)).sum((-1, -2))
    either = (said | (wide > 0)).sum((-1, -2)).clamp(min=1)
    return each.min(1).values + (scores - both / either).abs().mean(1)


# -------------------------------------------------------------------------------------------- head
class MaskHead(official.FrozenDecoder):
    """Prompt encoder and mask decoder, frozen: image features and clicks to a class map. `name`: the task model's, as
    typed. `specs`: its inputs. `grids`: (h, w) of each. `model`: SAM2Base, which provides both."""

    def __init__(self, name: str, specs: Sequence[FeatureSpec], grids: official.Grids, model: Any) -> None:
        super().__init__(name, specs, grids)
        self.prompts: Any = model.sam_prompt_encoder
        self.decoder: nn.Module = model.sam_mask_decoder
        self.side_px = int(model.image_size)

    def forward(self, x: Mapping[str, Tensor], clicks: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits [R, 3, h', w'] and predicted scores [R, 3] of clicks on one image. `x`: maps [1, C, h, w].
        `clicks`: [R, 2] (x, y) in the model's own image, R at least 1."""
        high_0, high_1, embed = self.inputs(x)
        labels = torch.ones(len(clicks), 1, dtype=torch.int, device=clicks.device)
        sparse, dense = self.prompts((clicks[:, None], labels), None, None)
        masks, scores, _, _ = self.decoder(
            image_embeddings=embed,
            image_pe=self.prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=[high_0, high_1],
        )
        return masks, scores

    def loss(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Mean loss of the batch's regions, at the decoder's resolution (a quarter of the model's image). `x`: maps [B,
        C, h, w]. `batch`: [B, H, W] class index or `VOID`."""
        losses = [torch.stack([m.sum() for m in self.inputs(x)]).sum()[None] * 0]
        n_regions = 0
        for i, regions in enumerate(self._regions(batch)):
            if not regions:
                continue
            logits, scores = self._of_image(x, i, regions, batch)
            truth = np.stack([r.mask for r in regions])[:, None]
            target = torch.from_numpy(truth).to(logits.device, logits.dtype)
            small = F.interpolate(target, logits.shape[-2:], mode="area").round()
            losses.append(mask_loss(logits, scores, small))
            n_regions += len(regions)
        return torch.cat(losses).sum() / max(1, n_regions)

    def predict(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Class indices at the images' size, int64 [B, H, W]; the batch provides the clicks and their classes."""
        out = torch.zeros(batch.shape, dtype=torch.long)
        size = (batch.shape[-2], batch.shape[-1])
        for i, regions in enumerate(self._regions(batch)):
            if not regions:
                continue
            logits, scores = self._of_image(x, i, regions, batch)
            best = logits[torch.arange(len(logits)), scores.argmax(1)]
            full = F.interpolate(best[:, None], size, mode="bilinear")[:, 0]
            labels = torch.tensor([r.label for r in regions])
            out[i] = labels[full.argmax(0).cpu()]
        return out

    def _of_image(
        self, x: Mapping[str, Tensor], i: int, regions: Sequence[Region], batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        height, width = batch.shape[-2:]
        one = {n: m[i : i + 1] for n, m in zip(self.shapes, self.inputs(x))}
        clicks = torch.tensor(
            [[r.click_px[0] / width, r.click_px[1] / height] for r in regions], device=next(iter(one.values())).device
        )
        masks: tuple[Tensor, Tensor] = self(one, clicks * self.side_px)
        return masks

    @staticmethod
    def _regions(batch: Tensor) -> list[list[Region]]:
        return [regions_of(c) for c in batch.cpu().numpy()]


# ------------------------------------------------------------------------------------------- build
def parse(variant: str) -> tuple[str, int]:
    """Variant and side [px] from the name as typed.

    >>> parse("small@512")
    ('small', 512)
    """
    base, at, side = variant.partition("@")
    chosen = variant_of("sam2_masks", base, REPOS)
    if not at:
        return chosen, SIDE_PX
    if not side.isdigit() or int(side) < COARSEST_PX or int(side) % COARSEST_PX:
        raise FcbenchError(
            f"sam2_masks:{variant}: the side after @ is {side!r}; it must be a multiple of {COARSEST_PX}, "
            f"such as sam2_masks:{chosen}@512"
        )
    return chosen, int(side)


def official_model(variant: str, side_px: int, overrides: Sequence[str] = ()) -> Any:
    """SAM2Base with the package's own configuration, untrained. `variant`: of `CONFIGS`. `side_px`: of its square
    input. `overrides`: further settings in hydra's syntax."""
    from sam2.build_sam import build_sam2

    return build_sam2(
        f"configs/sam2.1/sam2.1_hiera_{CONFIGS[variant]}.yaml",
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={side_px}", *overrides],
    )


class _Encoder(nn.Module):
    """The image encoder, and the layers that the decoder applies to its finer levels once per image."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder
        self.conv_s0 = model.sam_mask_decoder.conv_s0
        self.conv_s1 = model.sam_mask_decoder.conv_s1
        added = model.no_mem_embed if model.directly_add_no_mem_embed else None
        self.no_mem_embed = added

    def forward(self, x: Tensor) -> list[Tensor]:
        """high_res_0, high_res_1, image_embed of normalized images [B, 3, side, side]."""
        fine, middle, coarse = self.image_encoder(x)["backbone_fpn"]
        if self.no_mem_embed is not None:
            coarse = coarse + self.no_mem_embed.view(1, -1, 1, 1)
        return [self.conv_s0(fine), self.conv_s1(middle), coarse]


def build_from_model(
    name: str, model: Any, info: WeightsInfo, image_px: tuple[int, int], device: torch.device
) -> TaskModel:
    """The task model of any SAM2Base that has high-resolution features; see `Plugin.build`."""
    side = int(model.image_size)
    width = int(model.hidden_dim)
    channels = {"high_res_0": width // 8, "high_res_1": width // 4}
    grids = {n: (side // s, side // s) for n, s in INPUTS.items()}
    specs = [official.spec_of(n, channels.get(n, width), grids[n], image_px) for n in INPUTS]
    module = _Encoder(model)

    def run(images: Tensor) -> list[Tensor]:
        x = tv.resize(images.float() / 255, [side, side], antialias=True)
        maps: list[Tensor] = module(tv.normalize(x, *map(list, IMAGENET)))
        return maps

    encoder = official.OwnEncoder(name, specs, module, run, info, image_px, device)
    head = MaskHead(name, specs, grids, model)
    return official.OfficialModel(encoder, head)


class Plugin(TaskModelPlugin):
    """SAM 2's masks."""

    task = "segmentation"

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        chosen, side_px = parse(variant)
        name = f"sam2_masks:{chosen}" + (f"@{side_px}" if side_px != SIDE_PX else "")
        official.require_task(name, task, self.task)
        repo = REPOS[chosen]
        file = weights_file(weights, lambda: (hub_file(name, repo, (f"sam2.1_hiera_{chosen}.pt",)), f"hub:{repo}"))
        with seeded():
            model = official_model(chosen, side_px)
        return build_from_model(name, model, load_weights(model, name, file), image_px, device)


PLUGIN = Plugin()
