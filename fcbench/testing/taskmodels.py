"""Contract of task models. Three lines test one, built-in, installed or a file::

from fcbench.testing.taskmodels import TaskModelContract
class TestMine(TaskModelContract):
    plugin = "my_model.py"
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.core.tasks import Task, TaskModel
from fcbench.encoders.shared.weights import state_sha256
from fcbench.testing.fake_data import FakeDataset

N = 3  # images of 0, 1 and 2 persons
CPU = torch.device("cpu")


@dataclass
class Case:
    """A task model, and its decoder's inputs for three images."""

    task: Any
    model: TaskModel
    head: Any
    images: Tensor
    x: dict[str, Tensor]
    batch: Any


def check_segmentation(said: Any, task: Any, image_px: tuple[int, int]) -> None:
    assert said.shape == (N, *image_px)
    assert said.dtype in (torch.int64, torch.uint8)
    assert said.min() >= 0 and said.max() < task.n_classes


def check_depth(said: Any, task: Any, image_px: tuple[int, int]) -> None:
    assert said.shape == (N, *image_px) and said.dtype == torch.float32
    assert torch.isfinite(said).all() and (said >= 0).all()


def check_pose(said: Any, task: Any, image_px: tuple[int, int]) -> None:
    keypoints, scores = said
    assert keypoints.shape == (3, 17, 2) and scores.shape == (3,)
    assert torch.isfinite(keypoints).all() and torch.isfinite(scores).all()


def check_captioning(said: Any, task: Any, image_px: tuple[int, int]) -> None:
    assert len(said) == N
    assert all(isinstance(w, str) for c in said for w in c)


CHECKS: dict[str, Callable[[Any, Any, tuple[int, int]], None]] = {
    "segmentation": check_segmentation,
    "depth": check_depth,
    "pose": check_pose,
    "captioning": check_captioning,
}
"""Task -> the check that a prediction has the form that the task reads."""


class TaskModelContract:
    """Requirements for every task model. Subclass it in a test module and set `plugin`."""

    plugin: ClassVar[str | Path]  # ``NAME[:VARIANT]`` of a task model, or path of its file
    weights: ClassVar[str | None] = "random"  # weights to test with: None for its own, ``random``, or a file
    image_px: ClassVar[tuple[int, int]] = (64, 80)  # (H, W) of the images

    @classmethod
    def build(cls, task: Task, plugin: Any, variant: str) -> TaskModel:
        """The model on the CPU."""
        model: TaskModel = plugin.build(variant, cls.weights, task, cls.image_px, CPU)
        return model

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        data = FakeDataset(N, cls.image_px)
        name, variant = registry.split_variant(registry.use("taskmodel", str(cls.plugin)))
        plugin = registry.get("taskmodel", name)
        task = registry.get("task", plugin.task).build(data, data)
        model = cls.build(task, plugin, variant)
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (N, 3, *cls.image_px), dtype=torch.uint8, generator=generator)
        x = model.encoder(images, model.inputs).maps
        batch = task.collate([data.targets(i) for i in range(N)])
        return Case(task, model, model.head(), images, x, batch)

    def test_says_who_it_is(self, case: Case) -> None:
        assert case.model.name.partition(":")[0] in registry.names("taskmodel")
        assert case.model.weights.origin and len(case.model.weights.sha256) == 64

    def test_encoder_gives_the_decoders_inputs(self, case: Case) -> None:
        encoder = case.model.encoder
        assert set(case.model.inputs) <= set(encoder.specs)
        assert encoder.default_split_point in {**encoder.specs, **encoder.groups}
        assert tuple(case.x) == tuple(case.model.inputs)
        for name, x in case.x.items():
            assert encoder.specs[name].name == name
            assert x.dtype == torch.float32 and not x.requires_grad, name
            assert x.shape[:2] == (N, encoder.specs[name].channels), name
            assert torch.isfinite(x).all() and not torch.equal(x[0], x[1]), name

    def test_encoder_is_frozen(self, case: Case) -> None:
        module = case.model.encoder.module
        before = state_sha256(module)
        case.model.encoder(case.images, case.model.inputs)
        assert state_sha256(module) == before
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())

    def test_decoder_is_frozen_and_gradients_pass_through_it(self, case: Case) -> None:
        """A gradient step on the decoder's input changes only that input, even in training mode."""
        before = state_sha256(case.head)
        assert not any(p.requires_grad for p in case.head.parameters())
        x = {k: v.clone().requires_grad_() for k, v in case.x.items()}
        case.head.train()
        loss = case.head.loss(x, case.batch)
        assert loss.shape == () and torch.isfinite(loss)
        loss.backward()
        torch.optim.SGD(x.values(), 1e-2).step()
        case.head.eval()
        assert state_sha256(case.head) == before
        for key, v in x.items():
            assert v.grad is not None and torch.isfinite(v.grad).all(), key
            assert v.grad.abs().sum() > 0 and not torch.equal(v.detach(), case.x[key]), key

    def test_training_mode_changes_no_prediction(self, case: Case) -> None:
        with torch.no_grad():
            quiet = case.head.eval().predict(case.x, case.batch)
            case.head.train()
            loud = case.head.predict(case.x, case.batch)
        case.head.eval()
        assert str(quiet) == str(loud)

    def test_predicts_what_the_task_reads(self, case: Case) -> None:
        with torch.no_grad():
            said = case.head.predict(case.x, case.batch)
        if case.task.name in CHECKS:
            CHECKS[case.task.name](said, case.task, self.image_px)

    def test_statistics_are_finite_and_metrics_have_values(self, case: Case) -> None:
        with torch.no_grad():
            rows = case.task.statistics(case.head.predict(case.x, case.batch), case.batch)
        assert rows.shape == (N, case.task.n_statistics) and np.isfinite(rows).all()
        values = case.task.values(rows.sum(0))
        assert all(np.isfinite(values[m.name]) for m in case.task.metrics)
