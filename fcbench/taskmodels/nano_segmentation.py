"""Embedded segmentation of scenes: small convolutional encoder and decoder, 0.6 M parameters."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fcbench.taskmodels.shared.nano import WIDTH, NanoPlugin
from fcbench.tasks.segmentation import SegmentationHead, SegmentationTask


class Plugin(NanoPlugin):
    """Embedded segmentation."""

    def facts(self, task: SegmentationTask) -> dict[str, Any]:
        return {"class_names": list(task.class_names)}

    def make_head(self, facts: Mapping[str, Any], grid: tuple[int, int], image_px: tuple[int, int]) -> nn.Module:
        return SegmentationHead(WIDTH, grid, image_px, len(facts["class_names"]))

    def misfit(self, facts: Mapping[str, Any], task: SegmentationTask) -> str:
        known = tuple(facts["class_names"])
        if known == task.class_names:
            return ""
        return (
            f"its decoder knows the {len(known)} classes {', '.join(known)}; the task has "
            f"{len(task.class_names)}: {', '.join(task.class_names[:8])}"
        )


PLUGIN = Plugin("nano_segmentation", "segmentation")
