"""The contract of task models, and the stricter rules of this house, tried on every built-in task model."""

from __future__ import annotations

import importlib
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import Task, TaskModel
from fcbench.testing.taskmodels import CHECKS, CPU, Case, TaskModelContract

SMALL: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "small_models.py"))
VARIANTS = {"sam2_masks": "tiny@64"}


class HouseRules(TaskModelContract):
    """One set of random weights, grids that are known beforehand, message texts."""

    @classmethod
    def build(cls, task: Task, plugin: Any, variant: str) -> TaskModel:
        """A plug-in that has a published size builds a small one of the same classes."""
        name = str(cls.plugin).partition(":")[0]
        with pytest.MonkeyPatch.context() as patch:
            if name in SMALL["CONFIGS"]:
                pytest.importorskip("transformers", reason="needs pip install fcbench[transformers]")
                plugin = replace(plugin, config=lambda variant: SMALL["CONFIGS"][name]())
            if name == "sam2_masks":
                module = importlib.import_module(f"fcbench.taskmodels.{name}")
                small = partial(module.official_model, overrides=SMALL["SAM2_OVERRIDES"])
                patch.setattr(module, "official_model", small)
            return super().build(task, plugin, variant)

    def test_says_who_it_is(self, case: Case) -> None:
        assert case.model.name.split(":")[0] in registry.names("taskmodel")
        assert case.model.weights.origin.startswith("random(seed=")
        assert case.model.encoder.weights == case.model.weights
        assert case.task.name in CHECKS, "say in fcbench.testing.taskmodels what this task wants of a decoder"

    def test_refuses_another_task(self, case: Case) -> None:
        plugin = registry.get("taskmodel", case.model.name.split(":")[0])
        other: Any = SimpleNamespace(name="another")
        with pytest.raises(FcbenchError, match=f"{plugin.task}.*another"):
            plugin.build("", "random", other, self.image_px, CPU)


for _name in registry.names("taskmodel"):
    _typed = f"{_name}:{VARIANTS[_name]}" if _name in VARIANTS else _name
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (HouseRules,), {"plugin": _typed})
