"""Small configurations of the official classes of task models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _transformers() -> Any:
    """The package as untyped: its configurations take more keywords than their signatures name."""
    import transformers

    return transformers


def depth_config(kind: str = "metric") -> Any:
    transformers = _transformers()
    backbone = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    return transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=10 if kind == "metric" else 1,
        initializer_range=0.1,
    )


def pose_config(simple: bool = False, experts: int = 1) -> Any:
    transformers = _transformers()
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_experts=experts,
        part_features=8,
        out_indices=[2],
        initializer_range=0.3,
    )
    return transformers.VitPoseConfig(
        backbone_config=backbone, num_labels=17, use_simple_decoder=simple, initializer_range=0.3
    )


def blip_config() -> Any:
    import transformers

    size: Any = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    size |= dict(num_attention_heads=2, initializer_range=0.3)
    vision = transformers.BlipVisionConfig(**size, image_size=64, patch_size=16)
    text = transformers.BlipTextConfig(**size)
    return transformers.BlipConfig(vision_config=vision.to_dict(), text_config=text.to_dict())


CONFIGS: dict[str, Callable[[], Any]] = {"depth_anything": depth_config, "vitpose": pose_config, "blip": blip_config}
"""Task model of the package transformers -> its small configuration."""

SAM2_OVERRIDES = [
    "model.image_encoder.trunk.embed_dim=16",
    "model.image_encoder.trunk.stages=[1,1,2,1]",
    "model.image_encoder.trunk.global_att_blocks=[3]",
    "model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "++model.memory_attention.num_layers=1",
]
"""What makes the official SAM 2 small."""
