"""The embedded task models: what ships, what it is worth on scenes, what it refuses; and the script that makes them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks.embedded import task_models
from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.tasks import ScaledHead, Task
from fcbench.data.scenes import Scenes
from fcbench.data.scenes.chunks import Chunks
from fcbench.taskmodels.shared.nano import SPEC, NanoPlugin
from fcbench.tasks.captioning import CaptioningTask
from fcbench.tasks.captioning.head import Vocabulary
from fcbench.tasks.depth import DepthTask
from fcbench.tasks.segmentation import SegmentationTask

TASKS = task_models.TASKS
CPU = torch.device("cpu")
SIZE_PX = (128, 128)
MARGINS = {"segmentation": 0.1, "depth": 0.3, "pose": 0.2, "captioning": 0.4}
"""By how much the primary metric on 32 scenes must be better than with mean features."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(64, Chunks(tmp_path_factory.mktemp("scenes"), "test", SIZE_PX))


def plugin_of(name: str) -> NanoPlugin:
    plugin = registry.get("taskmodel", f"nano_{name}")
    assert isinstance(plugin, NanoPlugin)
    return plugin


def bound(name: str, scenes: Scenes) -> Task:
    return registry.get("task", name).build(scenes, scenes)


def test_every_task_model_of_scenes_is_here() -> None:
    names = registry.names("taskmodel")
    assert {f"nano_{t}" for t in TASKS} <= set(names)
    for name in TASKS:
        assert plugin_of(name).name == f"nano_{name}" and plugin_of(name).task == name


def test_weights_are_small_fp16_and_say_what_made_them() -> None:
    paths = [plugin_of(name).path for name in TASKS]
    assert sum(p.stat().st_size for p in paths) < 5_000_000
    for name, path in zip(TASKS, paths):
        floats = [v for v in load_file(path).values() if v.is_floating_point()]
        assert {v.dtype for v in floats} == {torch.float16}
        assert all(torch.isfinite(v).all() for v in floats)
        with safe_open(path, "pt") as file:
            about = {k: json.loads(v) for k, v in file.metadata().items()}
        training = about["training"]
        assert training["task"] == name and training["steps"] > 500
        assert "split embedded" in training["data"] and training["seed"] == 0
        assert set(about["test"]) == {"scenes", "own", "mean_features"}


@pytest.mark.parametrize("name", TASKS)
def test_own_features_are_worth_something(name: str, scenes: Scenes) -> None:
    task = bound(name, scenes)
    model = plugin_of(name).build("", None, task, SIZE_PX, CPU)
    assert model.weights.origin == "embedded" and model.inputs == (SPEC.name,)
    own, floor = task_models.evaluate(model, task, scenes, 32)
    metric = task.metrics[0]
    sign = 1 if metric.higher_is_better else -1
    assert sign * (own[metric.name] - floor[metric.name]) > MARGINS[name]


@pytest.mark.parametrize("name", TASKS)
def test_likelihood_of_own_features_beats_mean_features(name: str, scenes: Scenes) -> None:
    task = bound(name, scenes)
    model = plugin_of(name).build("", None, task, SIZE_PX, CPU)
    head: Any = model.head()
    indices = list(range(16))
    x = model.encoder(task_models.images_of(scenes, indices), model.inputs).maps
    mean = {k: v.mean(0, keepdim=True).expand_as(v) for k, v in x.items()}
    batch = task.collate([scenes.targets(i) for i in indices])
    stated = partial(head.log_density, scale=0.2) if isinstance(head, ScaledHead) else head.log_likelihood
    own, floor = (stated(m, batch) for m in (x, mean))
    assert own.shape == (16,) and own.mean() > floor.mean()


def test_features_are_standardized(scenes: Scenes) -> None:
    """So that distillation in units of their deviation weighs all channels alike."""
    model = plugin_of("depth").build("", None, bound("depth", scenes), SIZE_PX, CPU)
    images = task_models.images_of(scenes, list(range(32)))
    x = model.encoder(images, model.inputs).maps[SPEC.name]
    assert x.mean((0, 2, 3)).abs().mean() < 0.3
    assert 0.7 < x.std((0, 2, 3)).mean() < 1.3


@pytest.mark.parametrize("image_px", [(48, 48), (72, 104), (128, 130)])
def test_sizes_that_no_stride_divides(image_px: tuple[int, int], scenes: Scenes) -> None:
    task = SegmentationTask(len(scenes.meta.class_names), scenes.meta.class_names)
    model = plugin_of("segmentation").build("", None, task, image_px, CPU)
    images = torch.zeros(2, 3, *image_px, dtype=torch.uint8)
    x = model.encoder(images, model.inputs).maps
    head: Any = model.head()
    said = head.predict(x, torch.zeros(2, *image_px, dtype=torch.uint8))
    assert said.shape == (2, *image_px)


def test_refusals(tmp_path: Path, scenes: Scenes) -> None:
    def build(name: str, task: Any, **changed: Any) -> None:
        asked = {"variant": "", "weights": None, "image_px": SIZE_PX, **changed}
        plugin_of(name).build(task=task, device=CPU, **asked)

    classes = scenes.meta.class_names
    with pytest.raises(FcbenchError, match="classes .*; the task has 2: cat, dog"):
        build("segmentation", SegmentationTask(2, ("cat", "dog")))
    with pytest.raises(FcbenchError, match="nano_segmentation cannot be used on"):
        build("segmentation", SegmentationTask(len(classes), classes[::-1]))
    depth = DepthTask(scenes.meta.max_depth_m or 0, 1.0, 1.0)
    with pytest.raises(FcbenchError, match="up to .* m, the task needs up to 10 m"):
        build("depth", DepthTask(10.0, 1.0, 1.0))
    words = Vocabulary(("a", "box", "zebra"))
    with pytest.raises(FcbenchError, match="cannot output 1 of the task's 3 words: zebra"):
        build("captioning", CaptioningTask(words, 5, None))  # type: ignore[arg-type]
    with pytest.raises(FcbenchError, match="was trained for pose"):
        build("pose", depth)
    with pytest.raises(FcbenchError, match="no variants .got nano_depth:big"):
        build("depth", depth, variant="big")
    with pytest.raises(FcbenchError, match="at least 48x48 px, got 32x32"):
        build("depth", depth, image_px=(32, 32))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(FcbenchError, match="lack the facts about their decoder"):
        build("depth", depth, weights=str(tmp_path / "other.pt"))
    with pytest.raises(FcbenchError, match="not found"):
        build("depth", depth, weights=str(tmp_path / "none.safetensors"))


def test_random_weights_take_any_classes() -> None:
    task = SegmentationTask(2, ("cat", "dog"))
    model = plugin_of("segmentation").build("", "random", task, (64, 64), CPU)
    assert model.weights.origin == "random(seed=0)"


def test_script_trains_resumes_and_writes_what_can_be_read(
    tmp_path: Path, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, plugin = bound("captioning", scenes), plugin_of("captioning")
    asked = dict(steps=6, batch=4, rate=2e-3, seed=0)

    def run(resume: Path) -> tuple[Any, float]:
        model, _ = plugin.make(plugin.facts(task), SIZE_PX)
        return model, task_models.train(model, task, scenes, resume=resume, **asked)  # type: ignore[arg-type]

    whole, final = run(tmp_path / "whole.pt")
    resume = tmp_path / "cut.pt"
    with monkeypatch.context() as patch:
        patch.setattr("fcbench.training.loop.CHECKPOINT_S", 0.0)
        patch.setattr(task_models, "images_of", _fails_after(3))
        with pytest.raises(KeyboardInterrupt):
            run(resume)
    assert resume.exists()
    cut, again = run(resume)
    assert again == final and not resume.exists()
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[key], value)

    path = tmp_path / "made.safetensors"
    task_models.export(cut, path, {"facts": plugin.facts(task)})
    built = plugin.build("", str(path), task, SIZE_PX, CPU)
    assert built.weights.origin == "file:made.safetensors"
    own = built.encoder.module.state_dict()["layers.0.weight"]
    torch.testing.assert_close(own, cut.trunk.layers[0].weight.data, atol=1e-3, rtol=0)


def _fails_after(n: int) -> Any:
    """`images_of` of a run that is stopped at its n-th batch."""
    calls, read = [0], task_models.images_of

    def images_of(*args: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > n:
            raise KeyboardInterrupt
        return read(*args)

    return images_of
