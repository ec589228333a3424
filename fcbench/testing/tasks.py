"""Contract of tasks. Four lines test one, built-in, installed or a file, on its data set::

from fcbench.testing.tasks import TaskContract
class TestMine(TaskContract):
    plugin = "my_task.py"
    dataset = "my_data.py"
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions, Dataset
from fcbench.core.tasks import ProbabilisticHead, Ranking, ScaledHead, Task, metric_values
from fcbench.testing.contract import Contract
from fcbench.testing.fake_data import FakeDataset

WIDTH = 32
GEOMETRIES = [((4, 4), (64, 64)), ((5, 7), (72, 104)), ((3, 3), (42, 42))]
GEOMETRIES += [((1, 1), (32, 32)), ((16, 16), (64, 64)), ((20, 24), (40, 48))]
"""(h, w) of the features and (H, W) of the images."""

Size = tuple[int, int]
Bound = tuple[Task, list[Mapping[str, Any]], Any]  # A task on its data set, targets of the samples, a head or None


def data_of(dataset: str | None, n: int, size_px: Size) -> Dataset:
    """Samples of a data set that needs no root, or random ones for every built-in task."""
    if dataset is None:
        return FakeDataset(n, size_px)
    options = DataOptions(None, Path(tempfile.gettempdir()), size_px, n)
    return registry.get("dataset", registry.use("dataset", dataset)).open("train", options)


def bind(
    name: str, dataset: str | None = None, n: int = 6, size_px: Size = (64, 64), grid: Size | None = None
) -> Bound:
    """A task on ``n`` samples, and a head for a grid of stride 16 or another; None if a `RankingTask` has none."""
    data = data_of(dataset, n, size_px)
    task = registry.get("task", name).build(data, data)
    torch.manual_seed(0)
    try:
        head = task.head(WIDTH, grid or (size_px[0] // 16, size_px[1] // 16), size_px)
    except FcbenchError:
        if not isinstance(task, Ranking):
            raise
        head = None
    return task, [data.targets(i) for i in range(n)], head


def measured(task: Task, head: Any, x: Any, batch: Any) -> np.ndarray:
    """Statistics of a head's prediction."""
    with torch.no_grad():
        return task.statistics(head.predict(x, batch), batch)


def neck_output(n: int, grid: Size = (4, 4)) -> torch.Tensor:
    """Features in the form of a neck's output, [n, D, h, w]."""
    return torch.randn(n, WIDTH, *grid, generator=torch.Generator().manual_seed(3))


def learned(task: Task, head: Any, targets: list[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Fit head and free features of each sample; returns loss and primary metric, before and after."""
    x, batch = nn.Parameter(neck_output(len(targets))), task.collate(targets)
    optimizer = torch.optim.Adam([*head.parameters(), x], lr=0.01)

    def primary() -> float:
        return float(metric_values(task, measured(task, head, x, batch), np.ones((1, len(x))))[task.metrics[0].name][0])

    losses, values = [], [primary()]
    for _ in range(120):
        optimizer.zero_grad()
        loss = head.loss(x, batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return losses, [*values, primary()]


class TaskContract(Contract):
    """Requirements for every task; those of a head are skipped where only tails are measured. Subclass it in a test
    module and set `plugin` and `dataset`."""

    kind = "task"
    # name or file of a data set that supports it and needs no root; None: random targets of built-in tasks
    dataset: ClassVar[str | Path | None] = None

    def bind(
        self, name: str, n: int = 6, size_px: Size = (64, 64), grid: Size | None = None, headless: bool = False
    ) -> Bound:
        """The function of the same name, on the data set of the class. `headless`: the test needs no head."""
        bound = bind(name, None if self.dataset is None else str(self.dataset), n, size_px, grid)
        if bound[2] is None and not headless:
            pytest.skip("it has no head to be trained")
        return bound

    def test_declares_itself(self, name: str) -> None:
        task, _, _ = self.bind(name, headless=True)
        assert task.name == name, "a task has the name of its plug-in"
        assert len({m.name for m in task.metrics}) == len(task.metrics) >= 1
        values = metric_values(task, np.ones((2, task.n_statistics)), np.ones((1, 2)))
        assert list(values) == [m.name for m in task.metrics]

    def test_the_plugin_knows_the_values_without_a_data_set(self, name: str) -> None:
        task, _, _ = self.bind(name, headless=True)
        table, weights = np.ones((2, task.n_statistics)), np.array([[1.0, 1.0], [2.0, 0.0]])
        for key, value in metric_values(registry.get("task", name), table, weights).items():
            np.testing.assert_array_equal(value, metric_values(task, table, weights)[key])

    def test_statistics_do_not_depend_on_batching(self, name: str) -> None:
        task, targets, head = self.bind(name)
        x = neck_output(6)
        whole = measured(task, head, x, task.collate(targets))
        assert whole.shape == (6, task.n_statistics)
        assert whole.dtype == np.float64
        assert np.isfinite(whole).all()
        parts = [measured(task, head, x[i:j], task.collate(targets[i:j])) for i, j in ((0, 1), (1, 2), (2, 6))]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-6)
        for metric in task.metrics:
            assert np.isfinite(metric_values(task, whole, np.ones((1, 6)))[metric.name]).all(), metric

    def test_values_work_on_stacks_of_sums(self, name: str) -> None:
        task, targets, head = self.bind(name)
        if isinstance(task, Ranking):
            pytest.skip("its metrics are no functions of sums")
        table = measured(task, head, neck_output(6), task.collate(targets))
        draws = np.random.default_rng(0).integers(0, 6, (2, 5, 6))
        sums = table[draws].sum(-2)  # [2, 5, S]
        for key, value in task.values(sums).items():
            assert value.shape == (2, 5)
            single = [[task.values(sums[i, j])[key] for j in range(5)] for i in range(2)]
            np.testing.assert_allclose(value, single, rtol=1e-12)

    def test_nothing_counted_is_nan(self, name: str) -> None:
        task, _, _ = self.bind(name, headless=True)
        for value in metric_values(task, np.zeros((2, task.n_statistics)), np.zeros((3, 2))).values():
            assert value.shape == (3,) and np.isnan(value).all()

    @pytest.mark.parametrize("grid, size_px", GEOMETRIES)
    def test_any_geometry(self, name: str, grid: Size, size_px: Size) -> None:
        task, targets, head = self.bind(name, 3, size_px, grid)
        x = neck_output(3, grid).requires_grad_()
        batch = task.collate(targets)
        loss = head.loss(x, batch)
        assert loss.shape == () and torch.isfinite(loss)
        loss.backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()
        assert x.grad.abs().sum() > 0
        for key, p in head.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), key
        assert np.isfinite(measured(task, head, x, batch)).all()

    def test_statistics_leave_head_and_graph_alone(self, name: str) -> None:
        task, targets, head = self.bind(name)
        before = {k: v.clone() for k, v in head.state_dict().items()}
        x = neck_output(6).requires_grad_()
        table = measured(task, head, x, task.collate(targets))
        again = measured(task, head, x, task.collate(targets))
        np.testing.assert_array_equal(table, again)
        assert x.grad is None and head.training
        assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())

    def test_learns_four_samples(self, name: str) -> None:
        """The head and free features of each sample fit them: loss and primary metric improve."""
        task, targets, head = self.bind(name, 4)
        losses, (begin, end) = learned(task, head, targets)
        assert losses[-1] < losses[0]
        assert end > begin if task.metrics[0].higher_is_better else end < begin

    def test_log_likelihood_is_of_each_sample(self, name: str) -> None:
        task, targets, head = self.bind(name)
        head.eval()
        x = neck_output(6)
        if isinstance(head, ScaledHead):
            stated = partial(head.log_density, scale=0.2)
        elif isinstance(head, ProbabilisticHead):
            stated = head.log_likelihood  # type: ignore[assignment]
        else:
            pytest.skip("its head states no probability")
        whole = stated(x, task.collate(targets))
        assert whole.shape == (6,) and torch.isfinite(whole).all()
        if isinstance(head, ScaledHead):  # an untrained head is off by more than a thousandth of the deviation
            assert (head.log_density(x, task.collate(targets), scale=1e-3) < whole).all()
        else:
            assert (whole <= 0).all(), "a probability is at most 1"
        parts = [stated(x[i:j], task.collate(targets[i:j])) for i, j in ((0, 1), (1, 2), (2, 6))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-3)

    def test_refuses_data_without_the_task(self, name: str) -> None:
        class Bare(FakeDataset):
            tasks = ("nothing",)

        with pytest.raises(Exception):  # noqa: B017, PT011
            registry.get("task", name).build(Bare(), Bare())

    def test_head_state_reloads(self, name: str) -> None:
        task, targets, head = self.bind(name)
        torch.manual_seed(7)
        other: Any = task.head(WIDTH, (4, 4), (64, 64))
        x, batch = neck_output(6), task.collate(targets)
        assert other.eval().loss(x, batch) != head.eval().loss(x, batch)
        other.load_state_dict(head.state_dict())
        torch.testing.assert_close(other.loss(x, batch), head.loss(x, batch))
