"""Benches on features that were made of other features: a constant (the null model's input), a frozen neck's output.

All that a `Bench` does on an encoder's features it does on these: readouts and codecs are trained, kept and found again
by the same code, with the same budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fcbench.core.cache import digest
from fcbench.core.features import FeatureSpec
from fcbench.features.extract import FeatureStore
from fcbench.features.source import Split
from fcbench.measure.bench import Bench
from fcbench.measure.suite import Suite
from fcbench.training.readout import Standardize

BATCH = 64
CONSTANT = "constant"


class Derived(Bench):
    """A bench whose features are made of another's.

    Args:
        above: the bench that they are made of.
        train, test: features of its samples.
        suite: where not the one above.
    """

    def __init__(self, above: Bench, train: FeatureStore, test: FeatureStore, suite: Suite | None = None) -> None:
        super().__init__(
            suite or above.suite, above.data, above.encoder, above.seed, above.cache_dir, above.device, above.report
        )
        self.above = above
        self.split_point = "+".join(train.specs)
        self._stores = train, test

    @cached_property
    def train(self) -> Split:
        """Training split: the samples of the bench above."""
        return Split(self.above.train.dataset, self._stores[0])

    @cached_property
    def test(self) -> Split:
        """Test split: the samples of the bench above."""
        return Split(self.above.test.dataset, self._stores[1])


def made_store(of: FeatureStore, key: str, spec: FeatureSpec, array: Tensor) -> FeatureStore:
    """Features [N, C, h, w] of the samples of another store, in memory alone.

    Args:
        key: names the set: what is trained on it is found again by this name.
    """
    entries, shape = of.entries, (int(array.shape[-2]), int(array.shape[-1]))
    # not whole (its statistics are kept nowhere): there is no folder
    return FeatureStore(
        Path(key),
        entries,
        of.skipped,
        of.image_px,
        {spec.name: spec},
        {spec.name: shape},
        len(entries) + 1,
        {spec.name: array},
    )


def finest(store: FeatureStore) -> tuple[FeatureSpec, tuple[int, int]]:
    """Split point and grid of a store's finest map: the grid of a neck's output."""
    name = next(iter(store.specs))
    return store.specs[name], store.shapes[name]


def null_bench(bench: Bench) -> Derived:
    """The same samples with a constant for features: what is trained on it is the null model.

    The constant is one channel of zeros. Behind a neck's embedding that is all that any constant is, so encoders share
    the null model of their data, grid, neck and head. It is trained by the task's loss, whatever trained the necks: a
    null model that explains little would count as information.
    """
    spec, grid = finest(bench.train.store)
    constant = FeatureSpec(CONSTANT, 1, spec.stride_px)
    stores = []
    for split in (bench.train, bench.test):
        store = split.store
        key = digest(
            {
                "data": split.dataset.name,
                "revision": bench.revision,
                "ids": store.ids,
                "grid": grid,
                "image_px": store.image_px,
            }
        )
        zeros = torch.zeros(1, 1, *grid).expand(len(store), -1, -1, -1)
        stores.append(made_store(store, f"{CONSTANT}-{key}", constant, zeros))
    train, test = stores
    return Derived(bench, train, test, replace(bench.suite, neck_loss="task"))


def neck_name(task: str) -> str:
    """Split point that a task's neck gives: ``neck:depth``."""
    return f"neck:{task}"


def neck_bench(bench: Bench, task: str) -> Derived:
    """The same samples as the frozen neck of a task gives them."""
    spec, _ = finest(bench.train.store)
    made = FeatureSpec(neck_name(task), bench.suite.budget.width, spec.stride_px)
    key = digest(bench.readout_key(task))
    train, test = (
        made_store(s.store, f"neck-{which}-{key}", made, _outputs(bench, task, s.store))
        for which, s in (("train", bench.train), ("test", bench.test))
    )
    return Derived(bench, train, test)


def neck_output(bench: Bench, task: str, maps: Mapping[str, Tensor]) -> Tensor:
    """What the frozen neck of a task makes of maps [B, C, h, w]: [B, D, h, w], before any adapter."""
    model = bench.readout(task)[1]
    out: Tensor = model.neck(Standardize.forward(model, maps))
    return out


def _outputs(bench: Bench, task: str, store: FeatureStore) -> Tensor:
    """[N, D, h, w] of a whole store."""
    with torch.no_grad():  # not inference mode: codecs and necks are trained on these
        parts = [
            neck_output(bench, task, store.batch(range(i, min(i + BATCH, len(store))))).cpu()
            for i in range(0, len(store), BATCH)
        ]
    return torch.cat(parts)
