"""Embedded pose of persons in scenes: small convolutional encoder and decoder, 0.6 M parameters."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fcbench.taskmodels.shared.nano import WIDTH, NanoPlugin
from fcbench.tasks.pose import PoseTask


class Plugin(NanoPlugin):
    """Embedded pose."""

    def facts(self, task: PoseTask) -> dict[str, Any]:
        return {}

    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return PoseTask().head(WIDTH, grid, image_px)

    def misfit(self, facts: Mapping[str, Any], task: PoseTask) -> str:
        return f"{task.n_keypoints} keypoints that are not COCO's" if task.keypoint_names else ""


PLUGIN = Plugin("nano_pose", "pose")
