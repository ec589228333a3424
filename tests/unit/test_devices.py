"""What stays on a device during a training, and what travels: the values are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fcbench.core import registry
from fcbench.features import devices
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.source import derived_set
from fcbench.features.statistics import stats_of
from fcbench.testing.codecs import middle
from fcbench.testing.fake_data import FakeDataset
from fcbench.testing.maps import TWO, batches
from fcbench.training.codec import fit_codec
from fcbench.training.options import Budget
from fcbench.training.readout import Readout, fit_readout, task_loss
from fcbench.training.targets import Batches, Targets

CPU, META = torch.device("cpu"), torch.device("meta")
N, BUDGET = 6, Budget(task_steps=3, task_batch=4, codec_steps=3, codec_batch=4, width=32)


def feature_set() -> FeatureSet:
    maps = dict(zip((s.name for s in TWO), batches(TWO, N, (4, 4), seed=1)))
    grids = {name: (int(m.shape[2]), int(m.shape[3])) for name, m in maps.items()}
    samples = tuple(SampleInfo(str(i), i, (64, 64)) for i in range(N))
    return FeatureSet("fake", samples, (), (64, 64), {s.name: s for s in TWO}, grids, maps)


def trained(task_name: str, folder: Path) -> dict[str, Tensor]:
    """A readout, and a codec that is trained for it."""
    data, found = FakeDataset(N), feature_set()
    task, targets, stats = registry.get("task", task_name).build(data, data), Targets(data, task_name), stats_of(found)
    torch.manual_seed(0)
    neck = registry.get("neck", "linear").build(list(found.specs.values()), found.grids, BUDGET.width)
    model = Readout(stats, neck, task.head(BUDGET.width, found.finest[1], found.image_px))
    fit_readout(model, task, found, targets, None, "task", BUDGET, seed=0, resume=folder / "r")
    codec: Any = registry.get("codec", "hyperprior").build(list(TWO), stats, middle("hyperprior"))
    codec.prepare([found.arrays[s.name] for s in TWO])
    loss = task_loss(model.eval().requires_grad_(False), task, targets)
    more: Mapping[str, Any] = {"objective": "both", "task_loss": loss, "device": CPU, "seed": 0, "resume": folder / "c"}
    fit_codec(codec, (1.0, 1.0), found, stats, BUDGET, **more)
    return {**model.state_dict(), **codec.state_dict()}


@pytest.mark.parametrize("task", FakeDataset.tasks)
def test_training_is_the_same_with_all_on_the_device(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(task, tmp_path)
    asked: list[torch.device] = []

    def free_bytes(device: torch.device) -> int:
        asked.append(device)
        return 1 << 40

    monkeypatch.setattr(devices, "free_bytes", free_bytes)
    got = trained(task, tmp_path)
    assert asked
    assert all(torch.equal(got[k], v) for k, v in expected.items())


def test_a_set_goes_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = feature_set()
    n_bytes = found.n_bytes
    assert found.near(META) is found and devices.free_bytes(CPU) == 0
    monkeypatch.setattr(devices, "free_bytes", lambda device: 4 * n_bytes)
    assert found.near(META) is found
    monkeypatch.setattr(devices, "free_bytes", lambda device: 4 * n_bytes + 4)
    near = found.near(META)
    assert near is not found and near.key == found.key
    assert all(near.batch([2, 0])[k].device == META and v.shape[0] == 2 for k, v in near.batch([2, 0]).items())


@pytest.mark.parametrize("name", FakeDataset.tasks)
def test_batches_are_collated_targets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, used = FakeDataset(N), list[int]()
    task, targets = registry.get("task", name).build(data, data), Targets(data, name)

    class Counted(Targets):
        def __call__(self, indices: Any) -> Any:
            used.extend(indices)
            return super().__call__(indices)

    monkeypatch.setattr(devices, "free_bytes", lambda device: 1 << 40)
    kept = Batches(task, Counted(data, name), CPU)
    used.clear()
    for indices in ([0, 2, 2], [2, 5], [5, 0]):
        got, expected = kept(indices), task.collate(targets(indices))
        assert torch.equal(got, expected) if isinstance(expected, Tensor) else str(got) == str(expected)
    assert used == [0, 2, 5] or not isinstance(expected, Tensor)


def test_what_moves() -> None:
    @dataclass(frozen=True)
    class Batch:
        n: int
        x: Tensor

    class Unknown:
        pass

    x, unknown = torch.zeros(2), Unknown()
    assert devices.moved(x, META).device == META
    assert devices.moved({"a": x}, META)["a"].device == META
    assert devices.moved(Batch(3, x), META).x.device == META and devices.moved(Batch(3, x), META).n == 3
    assert devices.moved(unknown, META) is unknown and devices.moved(x, CPU) is x


def test_a_constant_is_read_once_for_all_samples() -> None:
    """A null model: the same loss and gradient as of the constant copied for each sample."""
    data, found = FakeDataset(N), feature_set()
    spec = TWO[0]
    array = torch.zeros(1, spec.channels, *found.grids[spec.name]).expand(N, -1, -1, -1)
    constant = derived_set(found, "constant", spec, array)
    task, targets = registry.get("task", "depth").build(data, data), Targets(data, "depth")
    torch.manual_seed(0)
    neck = registry.get("neck", "neck_2L").build([spec], constant.grids, BUDGET.width)
    model = Readout(stats_of(constant), neck, task.head(BUDGET.width, constant.grids[spec.name], (64, 64)))
    sizes, results = list[int](), []
    neck.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0][spec.name])))
    maps = constant.batch([0, 2, 2, 5])
    for given in (maps, {k: m.clone(memory_format=torch.contiguous_format) for k, m in maps.items()}):
        model.zero_grad()
        x = model(given)
        loss = model.head.loss(x, task.collate(targets([0, 2, 2, 5])))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((x.detach(), loss.detach(), gradient))
    assert sizes == [1, 4] and len(results[0][0]) == 4
    for once, each in zip(*results):
        torch.testing.assert_close(once, each, rtol=1e-4, atol=1e-5)
