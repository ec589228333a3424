"""The training stages of the embedded encoders, each a module with ``loss(scenes, indices, rng)``.

1. `MaskedAutoencoder`: masked-image modelling with dropped mask units (Hiera, Ryali et al. 2023).
2. `Attributes`: supervised fine-tuning on image-level attributes -> ``hiera_nano``.
3. `Promptable`: class-agnostic masks from a point or a box, with the SAM 2 package's prompt encoder and mask
   decoder -> ``sam2_nano``.
4. `Both`: the second and the third at once, on one trunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from benchmarks.embedded.scenes_cache import SIZE_PX, Scenes
from fcbench.data.scenes.figure import ARMS, LEGS
from fcbench.data.scenes.objects import COLOURS, KINDS, TEXTURES
from fcbench.data.scenes.scene import GROUNDS, Scene, sample_scene
from fcbench.encoders.shared.nano import STAGES, UNIT_PX, build_trunk
from fcbench.encoders.shared.padded import IMAGENET, normalized

GRID = SIZE_PX // 16  # stage 3
UNITS = SIZE_PX // UNIT_PX
D = 128
Maps = Sequence[Tensor]  # [B, C, h, w] of the trunk's stages, fine to coarse


def images(scenes: Scenes, indices: np.ndarray) -> Tensor:
    """[B, 3, H, W] normalized."""
    return normalized(torch.from_numpy(scenes.images[indices]), IMAGENET, levels=255)


class Fuse(nn.Module):
    """Stages 3 and 4 to one map [B, D, h, w] at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(128, D, 1), nn.Conv2d(256, D, 1)

    def forward(self, stage3: Tensor, stage4: Tensor) -> Tensor:
        return self.fine(stage3) + F.interpolate(self.coarse(stage4), scale_factor=2)


class MaskedAutoencoder(nn.Module):
    """Encodes only the visible mask units, and predicts the normalized pixels of the others."""

    def __init__(self, visible: int = 6) -> None:
        super().__init__()
        self.visible = visible
        self.trunk = build_trunk()
        nn.init.trunc_normal_(self.trunk.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.trunk.pos_embed_window, std=0.02)
        self.fuse = Fuse()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, D))
        self.positions = nn.Parameter(torch.randn(1, GRID * GRID, D) * 0.02)
        layer = nn.TransformerEncoderLayer(D, 4, 4 * D, 0.0, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(D), enable_nested_tensor=False)
        self.predict = nn.Linear(D, 16 * 16 * 3)

    def encode_units(self, x: Tensor, keep: Tensor) -> Tensor:
        """[B, V, 4, D] fused tokens of the visible units keep [B, V] (their numbers in row order)."""
        b, v = keep.shape
        tokens = self.trunk.patch_embed(x)
        tokens = tokens + self.trunk._get_pos_embed(tokens.shape[1:3])
        side = tokens.shape[1] // UNITS
        units = tokens.view(b, UNITS, side, UNITS, side, -1).transpose(2, 3).reshape(b, UNITS**2, side, side, -1)
        t = units[torch.arange(b)[:, None], keep].flatten(0, 1)  # [B V, 8, 8, C]: each unit one window
        stage3 = t
        for i, block in enumerate(self.trunk.blocks):
            if block.window_size == 0:  # the whole image: all units of a sample stacked along the height
                c = t.shape[-1]
                t = block(t.view(b, v * t.shape[1], t.shape[2], c)).view(b * v, t.shape[1], t.shape[2], c)
            else:
                t = block(t)
            if i == sum(STAGES[:3]) - 1:
                stage3 = t
        return self.fuse(stage3.permute(0, 3, 1, 2), t.permute(0, 3, 1, 2)).flatten(2).mT.reshape(b, v, 4, D)

    def loss(self, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        x = images(scenes, indices)
        b = len(x)
        order = torch.from_numpy(rng.random((b, UNITS**2)).argsort(1))
        keep = order[:, : self.visible]
        seen = self.encode_units(x, keep)
        full = self.mask_token.expand(b, UNITS**2, 4, D).clone()
        full[torch.arange(b)[:, None], keep] = seen
        grid = full.view(b, UNITS, UNITS, 2, 2, D).transpose(2, 3).reshape(b, GRID * GRID, D)
        out = self.predict(self.decoder(grid + self.positions))
        target = F.unfold(x, 16, stride=16).mT
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-4).sqrt()
        hidden = torch.ones(b, UNITS**2).scatter(1, keep, 0.0)
        hidden = hidden.view(b, UNITS, 1, UNITS, 1).expand(-1, -1, 2, -1, 2).reshape(b, -1)
        return ((out - target).square().mean(-1) * hidden).sum() / hidden.sum()


class Attributes(nn.Module):
    """Image-level attributes of two kinds of image, in equal shares.

    Object-centred crops of 64 x 64 pixels (as ImageNet's images are object-centred) are classified from the mean
    token: kind, colours, texture, pose of the one thing in the middle. Whole scenes are classified by the tokens'
    votes, pooled by log-sum-exp.
    """

    CROP_PX = 64
    valid: Tensor
    valid_thing: Tensor

    def __init__(self, sizes: tuple[int, ...], crops: int = 32) -> None:
        super().__init__()
        self.crops = crops
        self.trunk = build_trunk()
        self.standardize = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c in (128, 256))
        self.vote = self._head(len(sizes) * max(sizes))
        self.describe = self._head(len(THING_SIZES) * max(THING_SIZES))
        self.register_buffer("valid", _valid(sizes))
        self.register_buffer("valid_thing", _valid(THING_SIZES))

    @staticmethod
    def _head(n: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(128 + 256, 2 * D), nn.GELU(), nn.Linear(2 * D, n))

    def tokens(self, maps: Maps) -> Tensor:
        """[B, N, 384]: stages 3 and 4, each channel standardized."""
        fine, coarse = (f(m) for f, m in zip(self.standardize, maps[2:]))
        both = torch.cat((fine, F.interpolate(coarse, scale_factor=2)), 1)
        return both.flatten(2).mT

    def loss(self, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        return self.loss_on(self.trunk(images(scenes, indices)), scenes, indices, rng)

    def loss_on(self, maps: Maps, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The loss on the trunk's maps of the whole scenes."""
        target = torch.from_numpy(scenes.attributes[indices].astype(np.int64))
        tokens = self.tokens(maps)
        whole = _cross_entropy(self.vote(tokens).logsumexp(1), self.valid, target)
        crops, labels = self._crops(scenes, rng)
        pooled = self.describe(self.tokens(self.trunk(crops))).mean(1)
        thing = _cross_entropy(pooled, self.valid_thing, labels)
        return whole + thing + redundancy(tokens[..., :128])

    def _crops(self, scenes: Scenes, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Crops [B, 3, 64, 64] around one thing each, and its attributes [B, A]."""
        crops: list[Tensor] = []
        labels: list[list[int]] = []
        while len(crops) < self.crops:
            index = int(rng.integers(len(scenes.images)))
            instances = scenes.instances[index]
            numbers, counts = np.unique(instances, return_counts=True)
            large = [n for n, c in zip(numbers, counts) if n > 0 and c > 60]
            if not large:
                continue
            number = large[rng.integers(len(large))]
            ys, xs = np.nonzero(instances == number)
            longest = max(float(np.ptp(xs)) * 1.15, float(np.ptp(ys)) * 1.15, self.CROP_PX)
            side = int(min(longest * rng.uniform(0.9, 1.2), SIZE_PX))
            at = [int(np.clip((v.min() + v.max() - side) / 2 + rng.normal(0, 5), 0, SIZE_PX - side)) for v in (ys, xs)]
            crop = torch.from_numpy(scenes.images[index, :, at[0] : at[0] + side, at[1] : at[1] + side].copy())
            size = (self.CROP_PX, self.CROP_PX)
            crops.append(F.interpolate(crop[None].float(), size, mode="area"))
            labels.append(thing_labels(sample_scene("embedded", index), number))
        return normalized(torch.cat(crops), IMAGENET, levels=255), torch.tensor(labels)


def redundancy(tokens: Tensor) -> Tensor:
    """Mean squared correlation between two channels of tokens [B, N, C], each standardized.

    Without it the trunk's residual stream collapses into half a dozen directions that dominate all others.
    """
    flat = tokens.flatten(0, 1)
    correlation = flat.T @ flat / len(flat)
    off = correlation - torch.diag(torch.diagonal(correlation))
    return off.square().sum() / (len(off) * (len(off) - 1))


THING_SIZES = (8, 8, 8, 4, 5, 5, 4, 3, 4, 2, 4)
"""Numbers of values of `thing_labels`."""


def thing_labels(scene: Scene, number: int) -> list[int]:
    """Kind, both colours, texture, pose and position of an instance."""
    thing = scene.things[number - 1]
    figure, colours = thing.figure, list(COLOURS)
    return [
        KINDS.index(thing.kind),
        colours.index(thing.colour),
        colours.index(thing.colour2),
        TEXTURES.index(thing.texture),
        1 + ARMS.index(figure.arms[0]) if figure else 0,
        1 + ARMS.index(figure.arms[1]) if figure else 0,
        1 + LEGS.index(figure.legs) if figure else 0,
        1 + int(figure.facing_front) if figure else 0,
        int(np.digitize(thing.z_m, (3, 4, 5.5))),
        int(scene.indoor),
        GROUNDS.index(scene.ground),
    ]


def _valid(sizes: tuple[int, ...]) -> Tensor:
    inside = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    return torch.where(inside, 0.0, -1e4)


def _cross_entropy(flat: Tensor, valid: Tensor, target: Tensor) -> Tensor:
    logits = flat.view(len(flat), *valid.shape) + valid
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


class Promptable(nn.Module):
    """SAM 2's prompt encoder and mask decoder on the trunk; prompts are points or boxes on objects and parts."""

    def __init__(self, prompts: int = 4, dim: int = 64) -> None:
        super().__init__()
        self.prompts = prompts
        self.trunk = build_trunk()
        self.fuse = Fuse()
        self.standardize = nn.BatchNorm2d(128, affine=False)
        self.squeeze = nn.Conv2d(D, dim, 1)
        self.fine = nn.ModuleList((nn.Conv2d(32, dim // 8, 1), nn.Conv2d(64, dim // 4, 1)))
        self.prompt = PromptEncoder(dim, (GRID, GRID), (SIZE_PX, SIZE_PX), 16)
        self.decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=4, mlp_dim=256),
            use_high_res_features=True,
        )

    def loss(self, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        return self.loss_on(self.trunk(images(scenes, indices)), scenes, indices, rng)

    def loss_on(self, maps: Maps, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The loss on the trunk's maps of the whole scenes."""
        points, boxes, use_box, target = self._prompts(scenes, indices, rng)
        p = self.prompts
        embedding = self.squeeze(self.fuse(maps[2], maps[3])).repeat_interleave(p, 0)
        fine = [conv(m).repeat_interleave(p, 0) for conv, m in zip(self.fine, maps)]
        losses, weights = [], []
        for chosen, kind in ((~use_box, "point"), (use_box, "box")):
            rows = torch.from_numpy(np.nonzero(chosen)[0])
            if not len(rows):
                continue
            labels = torch.ones(len(rows), 1, dtype=torch.int64)
            sparse, dense = (
                self.prompt((points[rows], labels), None, None)
                if kind == "point"
                else self.prompt(None, boxes[rows], None)
            )
            masks, iou, _, _ = self.decoder(
                image_embeddings=embedding[rows],
                image_pe=self.prompt.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                repeat_image=False,
                high_res_features=[f[rows] for f in fine],
            )
            losses.append(self._mask_loss(masks, iou, target[rows]) * len(rows))
            weights.append(len(rows))
        tokens = self.standardize(maps[2]).flatten(2).mT
        return torch.stack(losses).sum() / sum(weights) + redundancy(tokens)

    @staticmethod
    def _mask_loss(masks: Tensor, iou: Tensor, target: Tensor) -> Tensor:
        """Focal-like plus dice loss of the best of three masks [P, 3, h, w], and of the predicted overlap [P, 3]."""
        t = target[:, None].expand_as(masks)
        bce = F.binary_cross_entropy_with_logits(masks, t, reduction="none")
        p = masks.sigmoid()
        focal = (bce * (p - t).square()).mean((2, 3)) * 20
        both, total = (p * t).sum((2, 3)), (p + t).sum((2, 3))
        each = focal + 1 - (2 * both + 1) / (total + 1)
        hard = (masks > 0).float()
        real = (hard * t).sum((2, 3)) / ((hard + t).clamp(max=1).sum((2, 3)) + 1e-6)
        return (each.min(1).values + 0.1 * each.mean(1) + (iou - real).square().mean(1)).mean()

    def _prompts(
        self, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, np.ndarray, Tensor]:
        """Points [B P, 1, 2], boxes [B P, 4] px, flags of boxes [B P], targets [B P, h, w] at stride 4."""
        points, boxes, targets = [], [], []
        instances, parts = scenes.instances[indices], scenes.parts[indices]
        for i in range(len(indices)):
            for _ in range(self.prompts):
                labels = (instances if rng.random() < 0.5 else parts)[i]
                values = np.unique(labels)
                mask = labels == values[rng.integers(1 if len(values) > 1 else 0, len(values))]
                ys, xs = np.nonzero(mask)
                k = rng.integers(len(ys))
                points.append((xs[k] + 0.5, ys[k] + 0.5))
                boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
                targets.append(mask.reshape(SIZE_PX // 4, 4, SIZE_PX // 4, 4).mean((1, 3)))
        use_box = rng.random(len(points)) < 0.25
        return (
            torch.tensor(np.array(points), dtype=torch.float32)[:, None],
            torch.tensor(np.array(boxes), dtype=torch.float32),
            use_box,
            torch.tensor(np.stack(targets), dtype=torch.float32),
        )


class Both(nn.Module):
    """`Attributes` and `Promptable` on one trunk and the same images: the mean of their losses."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.attributes, self.promptable = Attributes(sizes), Promptable()
        self.trunk = self.attributes.trunk
        self.promptable.trunk = self.trunk
        self.fuse = self.promptable.fuse

    def loss(self, scenes: Scenes, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        maps = self.trunk(images(scenes, indices))
        parts = [m.loss_on(maps, scenes, indices, rng) for m in (self.attributes, self.promptable)]
        return torch.stack(parts).mean()
