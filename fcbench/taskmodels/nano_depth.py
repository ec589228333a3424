"""Embedded depth of scenes: small convolutional encoder and decoder, 0.6 M parameters."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fcbench.taskmodels.shared.nano import WIDTH, NanoPlugin
from fcbench.tasks.depth import DepthTask


class Plugin(NanoPlugin):
    """Embedded depth."""

    def facts(self, task: DepthTask) -> dict[str, Any]:
        return {"max_depth_m": task.max_depth_m, "log_mean": task.log_mean, "log_std": task.log_std}

    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return DepthTask(**facts).head(WIDTH, grid, image_px)

    def misfit(self, facts: Mapping[str, Any], task: DepthTask) -> str:
        known = facts["max_depth_m"]
        if known == task.max_depth_m:
            return ""
        return f"its decoder predicts up to {known:g} m, the task needs up to {task.max_depth_m:g} m"


PLUGIN = Plugin("nano_depth", "depth")
