"""Contract of data sets. Three lines test one, built-in, installed or a file::

from fcbench.testing.datasets import DatasetContract
class TestMine(DatasetContract):
    plugin = "my_data.py"
"""

import pickle
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from fcbench.core import registry
from fcbench.core.samples import VOID, DataOptions, Dataset, Objects, Pose
from fcbench.testing.contract import Contract

LIMIT = 8
RESIZED = (64, 96)

Options = Callable[..., DataOptions]
Both = tuple[Dataset, Dataset]


def equal(a: Any, b: Any) -> bool:
    """Whether two targets are the same."""
    if isinstance(a, Pose | Objects):
        return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def check_segmentation(target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    mask = np.asarray(target)
    assert mask.dtype == np.uint8 and mask.shape == hw
    assert set(np.unique(mask)) <= {*range(len(data.meta.class_names)), VOID}


def check_depth(target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    depth = np.asarray(target)
    assert depth.dtype == np.float32 and depth.shape == hw
    assert np.isfinite(depth).all() and (depth >= 0).all() and (depth > 0).any()
    assert data.meta.max_depth_m is not None and depth.max() <= data.meta.max_depth_m


def check_pose(target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    n = len(target.areas)
    assert (
        target.keypoints.shape == (n, len(data.meta.keypoint_names) or 17, 3) and target.keypoints.dtype == np.float32
    )
    assert target.boxes.shape == (n, 4) and target.boxes.dtype == np.float32
    assert target.areas.shape == (n,) and target.areas.dtype == np.float32
    assert set(np.unique(target.keypoints[..., 2])) <= {0.0, 1.0, 2.0}
    assert (target.boxes[:, 2:] >= target.boxes[:, :2]).all() and (target.areas > 0).all()


def check_objects(task: str, target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    n, (height, width) = len(target.labels), target.size_px
    assert target.labels.dtype == np.int64 and set(target.labels) <= set(range(len(data.meta.names(task))))
    assert target.boxes.shape == (n, 4) and (target.boxes[:, 2:] >= 0).all()
    assert target.areas.shape == (n,) and target.crowd.shape == (n,) and target.crowd.dtype == bool
    if data.image_size_px is None:
        assert target.size_px == hw
    if task == "instance_segmentation":
        assert [rle.decode(region).shape for region in target.regions] == [(height, width)] * n
    if task == "keypoint_detection":
        assert target.keypoints.shape == (n, len(data.meta.keypoint_names) or 17, 3)


def check_captioning(target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    assert isinstance(target, tuple) and target
    assert all(isinstance(c, str) and c.strip() for c in target)


def check_classification(target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    assert isinstance(target, int) and 0 <= target < len(data.meta.label_names)


CHECKS: dict[str, Callable[[Any, Dataset, tuple[int, int]], None]] = {
    "segmentation": check_segmentation,
    "depth": check_depth,
    "pose": check_pose,
    "captioning": check_captioning,
    "classification": check_classification,
    **{t: partial(check_objects, t) for t in ("detection", "instance_segmentation", "keypoint_detection")},
}
"""Task -> the check that a target is what `Dataset.targets` documents, for an image (H, W)."""


def check_sample(data: Dataset, index: int, hw: tuple[int, int]) -> None:
    """Check that image and targets are as documented; targets of tasks from outside are checked by their task."""
    image, targets = data[index].image, data.targets(index)
    assert image.dtype == torch.uint8 and image.shape == (3, *hw)
    assert set(targets) == set(data.tasks)
    for task, target in targets.items():
        if task in CHECKS:
            CHECKS[task](target, data, hw)


class DatasetContract(Contract):
    """Requirements for every data set. Subclass it in a test module and set `plugin`."""

    kind = "dataset"
    root: ClassVar[Path | None] = None  # folder of the data, if read from disk; a few samples are enough

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, tmp_path_factory: pytest.TempPathFactory) -> Options:
        cache = tmp_path_factory.mktemp("cache")
        return lambda **changes: DataOptions(cls.root, cache, **{"limit": LIMIT, **changes})

    @pytest.fixture(scope="class")
    @classmethod
    def both(cls, name: str, options: Options) -> Both:
        """Its training and its test split."""
        plugin = registry.get("dataset", name)
        return plugin.open("train", options()), plugin.open("test", options())

    def test_the_split_describes_itself(self, name: str, both: Both) -> None:
        plugin = registry.get("dataset", name)
        assert plugin.tasks and isinstance(plugin.needs_root, bool)
        for data, split in zip(both, ("train", "test")):
            assert (data.name, data.split) == (name, split)
            assert set(data.tasks) <= set(plugin.tasks)
            assert data.revision and 0 < len(data) <= LIMIT

    def test_samples_are_as_documented(self, both: Both) -> None:
        for data in both:
            for i in range(len(data)):
                hw = data[i].size_px if data.image_size_px is None else data.image_size_px
                check_sample(data, i, hw)

    def test_ids_are_unique_and_splits_disjoint(self, both: Both) -> None:
        ids = [[d[i].id for i in range(len(d))] for d in both]
        images = [{d[i].image.numpy().tobytes() for i in range(len(d))} for d in both]
        assert all(len(set(of)) == len(of) for of in ids)
        assert not images[0] & images[1]

    def test_the_same_sample_twice_is_equal(self, name: str, both: Both, options: Options) -> None:
        again = registry.get("dataset", name).open("train", options())
        assert again.revision == both[0].revision
        for i in (len(again) - 1, 0):
            a, b = both[0][i], again[i]
            assert a.id == b.id and torch.equal(a.image, b.image)
            first, second = both[0].targets(i), again.targets(i)
            assert set(first) == set(second) and all(equal(first[t], second[t]) for t in first)

    def test_a_limit_takes_the_first(self, name: str, options: Options) -> None:
        plugin = registry.get("dataset", name)
        few, more = plugin.open("train", options(limit=2)), plugin.open("train", options(limit=3))
        assert (len(few), len(more)) == (2, 3)
        assert [few[i].id for i in range(2)] == [more[i].id for i in range(2)]

    def test_any_size_by_option(self, name: str, options: Options) -> None:
        data = registry.get("dataset", name).open("test", options(limit=2, image_size_px=RESIZED))
        check_sample(data, 0, RESIZED)

    def test_any_data_loader_can_have_it(self, both: Both) -> None:
        for data in both:
            again = pickle.loads(pickle.dumps(data))
            assert torch.equal(again[0].image, data[0].image)
