"""``vitpose:VARIANT``: ViTPose's heat-map decoder, run on each person's crop of the whole image's features.

Variants: ``base-simple`` (default), ``base``, ``base-coco-aic-mpii``, ``plus-small``, ``plus-base``, ``plus-large``,
``plus-huge``. The ``plus`` ones are mixtures of experts; the expert of COCO (index 0) is used.

The official model is top-down: it cuts each person out of the *image*, 256x192 px, and encodes the crop. Here features
of the whole image are coded once, so the crop is taken from the *features*: the same widened box (a quarter larger,
with the crop's aspect), sampled by ROI align to the decoder's grid of 16x12 cells; outside the image it is 0.

    image [B, 3, H, W] -> whole patches of 16 -> ViT, position embeddings interpolated -> tokens [B, C, h, w]
    tokens, boxes -> ROI align [P, C, 16, 12] -> | frozen: heat-map decoder | -> [P, 17, 64, 48] -> keypoints

On an image that is exactly one person's crop this is the official model. On others the encoder sees persons smaller
than in its training, so the model's own features are not an upper bound for a neck trained with the task loss. Heat
maps are turned into keypoints by the official post-processing (DARK, unbiased coordinates), without flip test. The
training loss is the official one: mean squared error against Gaussians of 2 cells, over the labelled keypoints.

References:
    Xu et al., "ViTPose", NeurIPS 2022; "ViTPose++", TPAMI 2023. Huang et al., "The Devil is in the Details", CVPR 2020.
"""

import importlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from fcbench.core.errors import FcbenchError
from fcbench.core.features import FeatureSpec, WeightsInfo
from fcbench.core.tasks import Task, TaskModel
from fcbench.encoders.shared import huggingface
from fcbench.encoders.shared.padded import IMAGENET
from fcbench.taskmodels.shared import official
from fcbench.taskmodels.shared.transformers_plugin import TransformersPlugin
from fcbench.tasks.pose import PoseBatch

REPOS = {
    variant: f"usyd-community/vitpose-{variant}"
    for variant in ("base-simple", "base", "base-coco-aic-mpii", "plus-small", "plus-base", "plus-large", "plus-huge")
}
SIZES = {"small": (384, 12, 12), "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
"""Width, layers, heads."""
EXPERTS = 6  # Experts of the ``plus`` variants; each provides a quarter of the width
COCO_EXPERT = 0
PADDING = 1.25  # Factor by which the official crop is larger than the person's box
SIGMA_SHARE = 2 / 64  # Deviation of the target Gaussians over the height of the heat map
MIN_PEAK = 0.2  # Minimum peak of a heat map for its keypoint to count in a person's score


def crops(boxes: Tensor, crop_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centre (x, y) and size (width, height) of the official crops, each [P, 2] in pixels, between pixel centres.

    `boxes`: [P, 4] (x0_px, y0_px, x1_px, y1_px). `crop_px`: (height, width) of the model's input, of which only the
    aspect matters.
    """
    aspect = crop_px[1] / crop_px[0]
    size = boxes[:, 2:] - boxes[:, :2]
    width = torch.maximum(size[:, 0], size[:, 1] * aspect)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, PADDING * torch.stack([width, width / aspect], -1)


def regions(boxes: Tensor, crop_px: tuple[int, int]) -> Tensor:
    """Areas that the crops cover, [P, 4] (x0_px, y0_px, x1_px, y1_px) between pixel edges.

    The official crop puts the centres of its first and last pixel on the borders; it covers half a crop pixel more on
    each side, and pixel centres lie half a pixel inside pixel edges.
    """
    centre, size = crops(boxes, crop_px)
    n = size.new_tensor([crop_px[1], crop_px[0]])
    half = size * n / (n - 1) / 2
    return torch.cat([centre - half, centre + half], -1) + 0.5


def on_heatmap(points: Tensor, boxes: Tensor, crop_px: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Image points [P, 17, 2] (x_px, y_px) in cells of their crop's heat map, by the official (unbiased) rule.

    `points`: in the image. `boxes`: [P, 4]. `crop_px`: (height, width) of the model's input. `size`: (h', w') of the
    heat map.
    """
    centre, extent = crops(boxes, crop_px)
    cells = extent.new_tensor([size[1] - 1, size[0] - 1])
    low = (centre - extent / 2)[:, None]
    return (points - low) / extent.clamp(min=1e-6)[:, None] * cells


def gaussians(at: Tensor, size: tuple[int, int]) -> Tensor:
    """Unnormalized Gaussians about points: [P, 17, h', w']. `at`: [P, 17, 2] (x, y) in cells. `size`: (h', w')."""
    y, x = (torch.arange(n, device=at.device) for n in size)
    squared = (x - at[..., 0, None])[:, :, None, :] ** 2
    squared = squared + (y - at[..., 1, None])[:, :, :, None] ** 2
    return torch.exp(-squared / (2 * (SIGMA_SHARE * size[0]) ** 2))


class PoseDecoder(official.FrozenDecoder):
    """The heat-map decoder, frozen: tokens of the whole image and boxes to keypoints.

    `name`: the task model's, as typed. `specs`: its input. `grids`: (h, w) of it. `model`: VitPoseForPoseEstimation,
    which provides the decoder. `image_px`: (H, W).
    """

    def __init__(
        self, name: str, specs: Sequence[FeatureSpec], grids: official.Grids, model: Any, image_px: tuple[int, int]
    ) -> None:
        super().__init__(name, specs, grids)
        self.decoder: nn.Module = model.head
        self.image_px = image_px
        backbone = model.config.backbone_config
        self.crop_px: tuple[int, int] = tuple(backbone.image_size)
        self.cells = tuple(s // p for s, p in zip(self.crop_px, backbone.patch_size))
        # transformers resolves this lazily; the module is where it lives
        processing = importlib.import_module("transformers.models.vitpose.image_processing_vitpose")
        self._processor = processing.VitPoseImageProcessor(size={"height": self.crop_px[0], "width": self.crop_px[1]})

    def heatmaps(self, tokens: Tensor, image: Tensor, areas: Tensor) -> Tensor:
        """Heat maps [P, 17, h', w'] of regions of the images. `tokens`: [B, C, h, w]. `image`: [P] the image of each
        region. `areas`: [P, 4] (x0_px, y0_px, x1_px, y1_px) between pixel edges."""
        h, w = tokens.shape[-2:]
        cell = areas.new_tensor([w / self.image_px[1], h / self.image_px[0]]).repeat(2)
        rois = torch.cat([image[:, None].to(areas), areas * cell], 1)
        cut = roi_align(tokens, rois, self.cells, aligned=True)
        out: Tensor = self.decoder(cut)
        return out

    def forward(self, x: Mapping[str, Tensor], batch: PoseBatch) -> Tensor:
        """Heat maps [P, 17, h', w'] of the batch's persons; P at least 1."""
        (tokens,) = self.inputs(x)
        boxes = batch.boxes.to(tokens.device)
        areas = regions(boxes, self.crop_px)
        return self.heatmaps(tokens, batch.image.to(tokens.device), areas)

    def loss(self, x: Mapping[str, Tensor], batch: PoseBatch) -> Tensor:
        """Mean squared error of the heat maps, over the labelled keypoints inside their crops."""
        if not len(batch.boxes):
            return torch.stack([m.sum() for m in self.inputs(x)]).sum() * 0
        maps = self(x, batch)
        size = (maps.shape[-2], maps.shape[-1])
        keypoints, boxes = (v.to(maps.device) for v in (batch.keypoints, batch.boxes))
        at = on_heatmap(keypoints[..., :2], boxes, self.crop_px, size)
        limit = at.new_tensor([size[1] - 1, size[0] - 1])
        inside = ((at >= 0) & (at <= limit)).all(-1)
        weight = inside & (keypoints[..., 2] > 0)
        error = F.mse_loss(maps, gaussians(at, size), reduction="none").mean((-1, -2))
        return (error * weight).sum() / weight.sum().clamp(min=1)

    def predict(self, x: Mapping[str, Tensor], batch: PoseBatch) -> tuple[Tensor, Tensor]:
        """Keypoints (x_px, y_px) [P, 17, 2], and scores [P]: mean of the peaks above `MIN_PEAK`."""
        if not len(batch.boxes):
            return batch.boxes.new_zeros(0, 17, 2), batch.boxes.new_zeros(0)
        maps = self(x, batch).detach().float().cpu()
        corners = batch.boxes.cpu().numpy()
        coco = corners.copy()
        coco[:, 2:] -= corners[:, :2]
        persons = self._processor.post_process_pose_estimation(SimpleNamespace(heatmaps=maps), boxes=[list(coco)])[0]
        peaks = torch.stack([p["scores"].reshape(-1) for p in persons])
        seen = peaks > MIN_PEAK
        score = (peaks * seen).sum(1) / seen.sum(1).clamp(min=1)
        return torch.stack([p["keypoints"] for p in persons]).float(), score.float()


def default_config(variant: str) -> Any:
    """The official configuration of a variant, as published."""
    transformers = huggingface.library()
    plus = variant.startswith("plus-")
    size = variant.removeprefix("plus-").split("-")[0]
    width, layers, heads = SIZES[size]
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_experts=EXPERTS if plus else 1,
        part_features=width // 4 if plus else 0,
        out_indices=[layers],
    )
    return transformers.VitPoseConfig(
        backbone_config=backbone, num_labels=17, use_simple_decoder=variant.endswith("simple")
    )


def encode(backbone: Any, x: Tensor) -> Tensor:
    """Tokens [B, N, C] of normalized images of any size whose sides are whole patches. The backbone only accepts its
    own size, so its position embeddings are interpolated (bicubic) to the grid."""
    embeddings = backbone.embeddings
    patches = embeddings.patch_embeddings
    tokens = patches.projection(x)
    size, patch = patches.image_size, patches.patch_size
    own = (size[0] // patch[0], size[1] // patch[1])
    first, rest = embeddings.position_embeddings.split([1, own[0] * own[1]], dim=1)
    position = official.to_map(rest, own)
    if position.shape[-2:] != tokens.shape[-2:]:
        position = F.interpolate(position, tokens.shape[-2:], mode="bicubic")
    tokens = (tokens + position).flatten(2).transpose(1, 2) + first
    expert = torch.full((len(x),), COCO_EXPERT, device=x.device)
    experts = expert if backbone.config.num_experts > 1 else None
    out = backbone.encoder(tokens, dataset_index=experts).last_hidden_state
    normed: Tensor = backbone.layernorm(out)
    return normed


def _task_model(
    name: str, model: Any, info: WeightsInfo, task: Task, image_px: tuple[int, int], device: torch.device
) -> TaskModel:
    config, backbone = model.config, model.backbone
    if config.num_labels != 17:
        raise FcbenchError(f"{name} has {config.num_labels} keypoints; the task needs the 17 of COCO")
    patch = config.backbone_config.patch_size
    grid = (-(-image_px[0] // patch[0]), -(-image_px[1] // patch[1]))
    size = (grid[0] * patch[0], grid[1] * patch[1])
    channels = config.backbone_config.hidden_size
    specs = [official.spec_of("tokens", channels, grid, image_px)]
    grids = {"tokens": grid}

    def run(images: Tensor) -> list[Tensor]:
        x = official.pixels(images, size, IMAGENET)
        return [official.to_map(encode(backbone, x), grid)]

    encoder = official.OwnEncoder(name, specs, backbone, run, info, image_px, device)
    decoder = PoseDecoder(name, specs, grids, model, image_px)
    return official.OfficialModel(encoder, decoder)


class Plugin(TransformersPlugin):
    """ViTPose, for the keypoints of COCO."""

    def from_config(self, name: str, config: Any, weights: str | None, task: Task, *where: Any) -> TaskModel:
        if names := getattr(task, "keypoint_names", ()):
            raise FcbenchError(f"{name} knows the 17 keypoints of COCO, the data set has {len(names)} others")
        return super().from_config(name, config, weights, task, *where)


PLUGIN = Plugin("vitpose", "pose", REPOS, default_config, "VitPoseForPoseEstimation", _task_model)
