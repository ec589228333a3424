"""Base of the task models of the package ``transformers``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fcbench.core.tasks import Task, TaskModel, TaskModelPlugin
from fcbench.encoders.shared import huggingface
from fcbench.encoders.shared.padded import variant_of
from fcbench.taskmodels.shared.official import require_task


@dataclass(frozen=True)
class TransformersPlugin(TaskModelPlugin):
    """A task model of the package transformers."""

    name: str  # the plug-in's
    task: str  # the task it was trained for
    repos: Mapping[str, str]  # repository on the hub by variant, the default first
    config: Callable[[str], Any]  # the package's configuration of a variant
    model_class: str  # of the package
    make: Callable[..., TaskModel]  # of (name as typed, model, origin of its weights, task, (H, W), device)

    def build(
        self, variant: str, weights: str | None, task: Task, image_px: tuple[int, int], device: torch.device
    ) -> TaskModel:
        """Build ``NAME:VARIANT`` for images of (H, W). `variant`: see the module; empty for the first. `weights`: None
        for the hub or its cache; ``random``; a folder that `save_pretrained` wrote, or the weights file in it."""
        chosen = variant_of(self.name, variant, self.repos)
        name = f"{self.name}:{chosen}"
        require_task(name, task, self.task)
        return self.from_config(name, self.config(chosen), weights, task, image_px, device, self.repos[chosen])

    def from_config(
        self,
        name: str,
        config: Any,
        weights: str | None,
        task: Task,
        image_px: tuple[int, int],
        device: torch.device,
        repo: str = "",
    ) -> TaskModel:
        """The task model of any configuration of the official class; see `build`."""
        model_class = getattr(huggingface.library(), self.model_class)
        if weights == "random":
            found = huggingface.random_model(model_class, config)
        else:
            found = huggingface.load(name, model_class, *huggingface.find(name, weights, repo))
        return self.make(name, *found, task, image_px, device)
