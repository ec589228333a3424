"""``depth_anything:VARIANT``: Depth Anything V2: a DINOv2 encoder, and the DPT decoder that reads four of its blocks.

Variants: ``metric-indoor-small`` (default), ``-base``, ``-large``; ``metric-outdoor-small``, ``-base``, ``-large``;
``small``, ``base``, ``large`` (relative).

    image -> resized as the official processor does (518 px, aspect kept, whole patches of 14) -> DINOv2
          -> patch tokens of four blocks [B, C, h, w] -> | frozen: reassemble, fuse, convolve | -> [B, 14 h, 14 w]
          -> resized to the image (bilinear, corners aligned)

*Metric* variants predict metres. Their training loss is the official one, scale-invariant in log depth.

*Relative* variants predict inverse depth up to a scale and a shift. As in the official evaluation, these are fitted to
each image's **ground truth** (least squares of inverse depth over its valid pixels), which ``predict`` takes from the
batch. Relative variants thus know two numbers per image that metric variants do not, and their results must not be
compared with metric ones. Their training loss is the mean absolute error after the same fit.

References:
    Yang et al., "Depth Anything V2", NeurIPS 2024. Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI
    2022 (the fit). Eigen et al., NeurIPS 2014 (the scale-invariant loss).
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.tasks import Task, TaskModel
from fcbench.encoders.shared import huggingface
from fcbench.encoders.shared.padded import IMAGENET
from fcbench.taskmodels.shared import official
from fcbench.taskmodels.shared.transformers_plugin import TransformersPlugin
from fcbench.tasks.depth import MIN_DEPTH_M, DepthTask

REPOS = {
    f"{kind}{size}": f"depth-anything/Depth-Anything-V2-{kind.title()}{size.title()}-hf"
    for kind in ("metric-indoor-", "metric-outdoor-", "")
    for size in ("small", "base", "large")
}
SIZES: dict[str, dict[str, Any]] = {
    "small": {"backbone": (384, 12, 6, (3, 6, 9, 12)), "neck": (48, 96, 192, 384), "fusion": 64},
    "base": {"backbone": (768, 12, 12, (3, 6, 9, 12)), "neck": (96, 192, 384, 768), "fusion": 128},
    "large": {"backbone": (1024, 24, 16, (5, 12, 18, 24)), "neck": (256, 512, 1024, 1024), "fusion": 256},
}
MAX_DEPTH_M = {"metric-indoor": 20, "metric-outdoor": 80}
VARIANCE_FOCUS = 0.5  # Share of the squared mean error that the scale-invariant loss ignores


def input_px(image_px: tuple[int, int], side_px: int, patch_px: int) -> tuple[int, int]:
    """(H, W) of the encoder's input: one side about ``side_px``, with the aspect kept and whole patches.

    The side that needs less scaling is fitted.

    >>> input_px((480, 640), 518, 14)
    (518, 686)
    """
    scale = min((side_px / s for s in image_px), key=lambda v: abs(1 - v))
    h, w = (max(patch_px, round(scale * s / patch_px) * patch_px) for s in image_px)
    return h, w


def scale_invariant_loss(metres: Tensor, target: Tensor) -> Tensor:
    """sqrt(mean(d^2) - VARIANCE_FOCUS mean(d)^2) of d = log target - log prediction over valid pixels. `metres`: [B, H,
    W] prediction. `target`: [B, H, W], 0 where invalid."""
    valid = target > 0
    metres_true = torch.where(valid, target, torch.ones_like(target))
    d = (metres_true.log() - metres.clamp(min=MIN_DEPTH_M).log()) * valid
    n = valid.sum().clamp(min=1)
    mean = d.sum() / n
    return ((d**2).sum() / n - VARIANCE_FOCUS * mean**2).clamp(min=1e-12).sqrt()


def fit_inverse_depth(inverse: Tensor, target: Tensor) -> Tensor:
    """Inverse depth in 1/m, by the scale and shift that best fit each image's valid pixels: [B, H, W].

    Scale and shift are the least-squares solution. An image whose prediction does not vary, or without a valid pixel,
    gets scale 0 and its mean inverse depth (1 / m without valid pixels). `inverse`: [B, H, W] inverse depth of unknown
    scale and shift. `target`: [B, H, W] metres, 0 where invalid.
    """
    valid = (target > 0).flatten(1)
    n = valid.sum(1, keepdim=True)
    y = torch.where(valid, 1 / target.flatten(1).clamp(min=MIN_DEPTH_M), 0.0)
    x = inverse.flatten(1)
    weight = valid / n.clamp(min=1)
    mean_x = (x * weight).sum(1, keepdim=True)
    mean_y = torch.where(n > 0, (y * weight).sum(1, keepdim=True), 1.0)
    off = x - mean_x
    variance = (off**2 * weight).sum(1, keepdim=True)
    covariance = (off * (y - mean_y) * weight).sum(1, keepdim=True)
    varies = variance > 1e-12
    scale = torch.where(varies, covariance / torch.where(varies, variance, 1.0), 0.0)
    return (scale * off + mean_y).view(inverse.shape)


class DepthDecoder(official.FrozenDecoder):
    """The DPT neck and head, frozen: four maps [B, C, h, w] to depth.

    `name`: the task model's, as typed. `specs`: its inputs. `grids`: (h, w) of each. `model`:
    DepthAnythingForDepthEstimation, which provides neck and head. `max_depth_m`: largest depth that it predicts.
    """

    def __init__(
        self, name: str, specs: Sequence[FeatureSpec], grids: official.Grids, model: Any, max_depth_m: float
    ) -> None:
        super().__init__(name, specs, grids)
        self.neck: nn.Module = model.neck
        self.head: nn.Module = model.head
        self.relative = model.config.depth_estimation_type == "relative"
        self.max_depth_m = max_depth_m

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Prediction of the official model, [B, 14 h, 14 w]: metres, or inverse depth of relative variants."""
        maps = self.inputs(x)
        h, w = maps[0].shape[-2:]
        tokens = [m.flatten(2).transpose(1, 2) for m in maps]
        # the neck expects a class token in front, and drops it
        out: Tensor = self.head(self.neck([F.pad(t, (0, 0, 1, 0)) for t in tokens], h, w), h, w)
        return out

    def loss(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """The official training loss at the image's size; see the module. `x`: maps [B, C, h, w]. `batch`: [B, H, W]
        metres, 0 where invalid."""
        target = batch.to(self.inputs(x)[0].device)
        pred = self._at(x, target)
        if not self.relative:
            return scale_invariant_loss(pred, target)
        valid = target > 0
        inverse = 1 / torch.where(valid, target, torch.ones_like(target))
        off = (fit_inverse_depth(pred, target) - inverse).abs() * valid
        return off.sum() / valid.sum().clamp(min=1)

    def predict(self, x: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Metres in [`MIN_DEPTH_M`, max_depth_m], float32 [B, H, W]. Metric variants use only the batch's size,
        relative ones also a scale and a shift per image."""
        target = batch.to(self.inputs(x)[0].device)
        pred = self._at(x, target)
        if self.relative:
            inverse = fit_inverse_depth(pred, target).clamp(min=1 / self.max_depth_m)
            pred = 1 / inverse
        return pred.clamp(MIN_DEPTH_M, self.max_depth_m)

    def _at(self, x: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The prediction at the target's size, [B, H, W]."""
        size = (target.shape[-2], target.shape[-1])
        out = self(x)[:, None]
        return F.interpolate(out, size, mode="bilinear", align_corners=True)[:, 0]


def default_config(variant: str) -> Any:
    """The official configuration of a variant, as published."""
    transformers = huggingface.library()
    kind, _, size = variant.rpartition("-")
    width, layers, heads, blocks = SIZES[size]["backbone"]
    backbone = transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_indices=list(blocks),
        reshape_hidden_states=False,
    )
    return transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=width,
        neck_hidden_sizes=list(SIZES[size]["neck"]),
        fusion_hidden_size=SIZES[size]["fusion"],
        depth_estimation_type="metric" if kind else "relative",
        max_depth=MAX_DEPTH_M.get(kind, 1),
    )


def _task_model(
    name: str, model: Any, info: WeightsInfo, task: Task, image_px: tuple[int, int], device: torch.device
) -> TaskModel:
    config = model.config
    patch = config.patch_size
    size = input_px(image_px, config.backbone_config.image_size, patch)
    grid = (size[0] // patch, size[1] // patch)
    blocks = config.backbone_config.out_indices
    channels = config.reassemble_hidden_size
    specs = [official.spec_of(f"block{i}", channels, grid, image_px) for i in blocks]
    grids = {s.name: grid for s in specs}
    backbone = model.backbone

    def run(images: Tensor) -> list[Tensor]:
        x = official.pixels(images, size, IMAGENET)
        tokens = backbone(x).feature_maps
        return [official.to_map(t[:, 1:], grid) for t in tokens]

    encoder = official.OwnEncoder(name, specs, backbone, run, info, image_px, device)
    max_depth_m = cast(DepthTask, task).max_depth_m
    decoder = DepthDecoder(name, specs, grids, model, max_depth_m)
    return official.OfficialModel(encoder, decoder)


PLUGIN = TransformersPlugin(
    "depth_anything", "depth", REPOS, default_config, "DepthAnythingForDepthEstimation", _task_model
)
