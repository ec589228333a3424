"""``--head frozen``: the neck learns to speak to another model's decoder, which stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from refusals import refused
from torch import nn

from fcbench.core.features import FeatureSpec, FeatureStats
from fcbench.encoders.shared.weights import state_sha256
from fcbench.features.feature_set import FeatureSet
from fcbench.necks.neck_2L import PLUGIN as NECK
from fcbench.results import table
from fcbench.training import readout
from fcbench.training.options import Budget
from fcbench.training.targets import Targets

Tiny = Callable[..., Result]
FROZEN = ("--head", "frozen", "--task", "depth", "--task-weights", "depth=random")


@pytest.mark.parametrize("neck_loss", ["task", "distill", "both"])
def test_rows_say_whose_decoder_read(tiny: Tiny, tmp_path: Path, neck_loss: str) -> None:
    out = tmp_path / "out"
    result = tiny(out, *FROZEN, "--neck-loss", neck_loss, "--codec", "uniform")
    assert result.exit_code == 0, result.output
    df = table.load(out)
    assert set(df["head"]) == {"frozen:nano_depth"}
    assert set(df.neck_loss) == {neck_loss}
    assert df.head_sha256.str.len().eq(64).all()
    n_params = json.loads(df.n_params.iloc[0])
    assert n_params["head"] > 10_000 and n_params["neck"] > 10_000


def test_a_cold_and_a_warm_cache_train_the_same_neck(tiny: Tiny, tmp_path: Path) -> None:
    options = *FROZEN, "--neck-loss", "both", "--codec", "uniform", "--cache-dir", tmp_path / "cache"
    trained = []
    for out in ("cold", "warm"):
        result = tiny(tmp_path / out, *options)
        assert result.exit_code == 0, result.output
        found = sorted((tmp_path / "cache" / "models").glob("task-*.safetensors"))
        trained.append([path.read_bytes() for path in found])
        for path in found:
            path.unlink()
    assert trained[0] and trained[0] == trained[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--neck-loss", "distill"), "add --head frozen"),
        (("--head", "frozen", "--task-model", "depth=nano_dept"), "nano_depth"),
        (("--head", "frozen", "--task-model", "depth"), "TASK=VALUE"),
        (("--head", "frozen", "--task-model", "dept=nano_depth"), "'depth'"),
        (("--head", "frozen", "--task", "classification"), "--task-model"),
    ],
)
def test_bad_heads_are_refused(tiny: Tiny, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    tasks = () if "--task" in options else ("--task", "depth")
    result = tiny(tmp_path / "out", *tasks, *options)
    if result.exit_code == 2:  # click's own: how to use the option
        assert words in result.output
    else:
        assert words in refused(result)


class _Sum(nn.Module):
    """A decoder of two inputs, of different grids."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

    def loss(self, x: dict[str, torch.Tensor], batch: object) -> torch.Tensor:
        a, b = x["fine"].mean(), x["token"].mean()
        return (self.weight[0] * a + self.weight[1] * b - 3.0).square()


def _stats(channels: int, std: float) -> FeatureStats:
    ones = torch.ones(channels)
    return FeatureStats(0.5 * ones, std * ones, -ones, ones)


def test_adapter_meets_every_grid_and_the_decoder_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    neck = NECK.build([FeatureSpec("s", 8, 16)], {"s": (4, 6)}, 32)
    grids = {"fine": (16, 24), "token": (1, 1)}
    stats = {"fine": _stats(5, 2.0), "token": _stats(7, 0.5)}
    adapter = readout.Adapter(32, (4, 6), stats, grids)
    head = _Sum()
    model = readout.Readout({"s": _stats(8, 1.0)}, neck, head, adapter)
    x = model({"s": torch.randn(2, 8, 4, 6)})
    assert {k: tuple(v.shape) for k, v in x.items()} == {"fine": (2, 5, 16, 24), "token": (2, 7, 1, 1)}
    assert not any(k.startswith("head") for k in model.state_dict())
    before, neck_before = state_sha256(head), state_sha256(neck)

    class Task:
        def collate(self, targets: object) -> None:
            return None

    class Store:
        block = 4

        def __len__(self) -> int:
            return 4

        def near(self, device: torch.device) -> Store:
            return self

        def batch(self, indices: list[int]) -> dict[str, torch.Tensor]:
            return {"s": torch.ones(len(indices), 8, 4, 6)}

    budget = Budget(task_steps=30, task_batch=2, task_rate=1e-2)
    store: FeatureSet = Store()  # type: ignore[assignment]
    targets: Targets = lambda indices: []  # type: ignore[assignment]
    record = readout.fit_readout(
        model, Task(), store, targets, None, "task", budget, seed=0, resume=tmp_path / "r"  # type: ignore[arg-type]
    )
    assert record.loss < 0.5
    assert state_sha256(head) == before and state_sha256(neck) != neck_before
