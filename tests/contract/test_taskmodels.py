"""Contract of every task model: a frozen decoder that speaks the task's language, and its own encoder."""

from __future__ import annotations

import importlib
import runpy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_dataset import FakeDataset

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.encoders.shared.weights import state_sha256

IMAGE_PX = (64, 80)
N = 3  # images of 0, 1, 2 persons
CPU = torch.device("cpu")


SMALL: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "small_models.py"))
VARIANTS = {"sam2_masks": "tiny@64"}


def shrunk(name: str, patch: pytest.MonkeyPatch) -> Any:
    """A plug-in; one that has a published size builds a small one of the same classes."""
    plugin = registry.get("taskmodel", name)
    if name in SMALL["CONFIGS"]:
        pytest.importorskip("transformers", reason="needs pip install fcbench[heads]")
        return replace(plugin, config=lambda variant: SMALL["CONFIGS"][name]())
    if name == "sam2_masks":
        module = importlib.import_module(f"fcbench.taskmodels.{name}")
        small = partial(module.official_model, overrides=SMALL["SAM2_OVERRIDES"])
        patch.setattr(module, "official_model", small)
    return plugin


@dataclass
class Case:
    task: Any
    model: Any
    head: Any
    images: torch.Tensor
    x: dict[str, torch.Tensor]
    batch: Any


@pytest.fixture(scope="module", params=registry.names("taskmodel"))
def case(request: pytest.FixtureRequest) -> Case:
    data = FakeDataset(N, IMAGE_PX)
    with pytest.MonkeyPatch.context() as patch:
        plugin = shrunk(request.param, patch)
        task = registry.get("task", plugin.task).build(data, data)
        variant = VARIANTS.get(request.param, "")
        model = plugin.build(variant, "random", task, IMAGE_PX, CPU)
    images = torch.randint(0, 256, (N, 3, *IMAGE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = model.encoder(images, model.inputs).maps
    batch = task.collate([data.targets(i) for i in range(N)])
    return Case(task, model, model.head(), images, x, batch)


def test_says_who_it_is(case):
    assert case.model.name.split(":")[0] in registry.names("taskmodel")
    assert case.model.weights.origin.startswith("random(seed=")
    assert case.model.encoder.weights == case.model.weights


def test_encoder_gives_the_decoders_inputs(case):
    encoder = case.model.encoder
    assert set(case.model.inputs) <= set(encoder.specs)
    assert encoder.default_split in {**encoder.specs, **encoder.groups}
    assert tuple(case.x) == case.model.inputs
    for name, x in case.x.items():
        assert encoder.specs[name].name == name
        assert x.dtype == torch.float32 and not x.requires_grad
        assert x.shape == (N, encoder.specs[name].channels, *case.model.grids[name])
        assert torch.isfinite(x).all() and not torch.equal(x[0], x[1])


def test_encoder_is_frozen(case):
    module = case.model.encoder.module
    before = state_sha256(module)
    case.model.encoder(case.images, case.model.inputs)
    assert state_sha256(module) == before
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_decoder_is_frozen_and_gradients_pass_through_it(case):
    """A step on what the decoder reads changes that, and nothing in the decoder; not even in training mode."""
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


def test_training_mode_changes_no_prediction(case):
    with torch.no_grad():
        quiet = case.head.eval().predict(case.x, case.batch)
        case.head.train()
        loud = case.head.predict(case.x, case.batch)
    case.head.eval()
    assert str(quiet) == str(loud)


def test_predicts_what_the_task_reads(case):
    with torch.no_grad():
        said = case.head.predict(case.x, case.batch)
    if case.task.name == "segmentation":
        assert said.shape == (N, *IMAGE_PX)
        assert said.dtype in (torch.int64, torch.uint8)
        assert said.min() >= 0 and said.max() < case.task.n_classes
    elif case.task.name == "depth":
        assert said.shape == (N, *IMAGE_PX) and said.dtype == torch.float32
        assert torch.isfinite(said).all() and (said >= 0).all()
    elif case.task.name == "pose":
        keypoints, scores = said
        assert keypoints.shape == (3, 17, 2) and scores.shape == (3,)
        assert torch.isfinite(keypoints).all() and torch.isfinite(scores).all()
    elif case.task.name == "captioning":
        assert len(said) == N
        assert all(isinstance(w, str) for c in said for w in c)
    else:
        pytest.fail(f"say here what task {case.task.name} wants of a decoder")


def test_statistics_are_finite_and_metrics_have_values(case):
    with torch.no_grad():
        rows = case.task.statistics(case.head.predict(case.x, case.batch), case.batch)
    assert rows.shape == (N, case.task.n_statistics) and np.isfinite(rows).all()
    values = case.task.values(rows.sum(0))
    assert all(np.isfinite(values[m.name]) for m in case.task.metrics)


def test_refuses_another_task(case):
    plugin = registry.get("taskmodel", case.model.name.split(":")[0])
    other = SimpleNamespace(name="another")
    with pytest.raises(FcbenchError, match=f"{plugin.task}.*another"):
        plugin.build("", "random", other, IMAGE_PX, CPU)
