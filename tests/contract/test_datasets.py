"""What every data set keeps: documented targets, unique ids, disjoint splits, the same sample twice."""

from __future__ import annotations

import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import VOID, DataOptions, Dataset, Pose

LIMIT = 8
SHARED = Path(__file__).parents[3] / "shared" / "data"


MAKERS: dict[str, Callable[[Path], None]] = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "tiny_sets.py"))[
    "MAKERS"
]
"""Data set on disk -> writes a tiny one in the official layout."""
REAL = {"coco": "coco_tiny", "rgbd": "rgbd_room"}
"""Data set -> its folder under ../shared/data, where that has another name."""


@pytest.fixture(scope="module", params=registry.names("dataset"))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def options(name: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataOptions]:
    folder = tmp_path_factory.mktemp(name)
    root = None
    if registry.get("dataset", name).needs_root:
        root = SHARED / name
        if name in MAKERS:
            root = folder / "data"
            MAKERS[name](root)
        elif not root.is_dir():
            pytest.skip(f"data set {name}: no maker of a tiny set in tests/unit/tiny_sets.py, no {root}")

    def make(**changes: Any) -> DataOptions:
        return DataOptions(root, folder / "cache", **{"limit": LIMIT, **changes})

    return make


@pytest.fixture(scope="module")
def both(name: str, options: Callable[..., DataOptions]) -> tuple[Dataset, Dataset]:
    plugin = registry.get("dataset", name)
    return plugin.open("train", options()), plugin.open("test", options())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Pose):
        fields = ("keypoints", "boxes", "areas")
        return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _check_target(task: str, target: Any, data: Dataset, hw: tuple[int, int]) -> None:
    """A target is what `Dataset.targets` documents. An unknown task fails here on purpose."""
    if task == "segmentation":
        mask = np.asarray(target)
        assert mask.dtype == np.uint8 and mask.shape == hw
        assert set(np.unique(mask)) <= {*range(len(data.meta.class_names)), VOID}
    elif task == "depth":
        depth = np.asarray(target)
        assert depth.dtype == np.float32 and depth.shape == hw
        assert np.isfinite(depth).all() and (depth >= 0).all() and (depth > 0).any()
        assert data.meta.max_depth_m is not None and depth.max() <= data.meta.max_depth_m
    elif task == "pose":
        n = len(target.areas)
        assert target.keypoints.shape == (n, 17, 3) and target.keypoints.dtype == np.float32
        assert target.boxes.shape == (n, 4) and target.boxes.dtype == np.float32
        assert target.areas.shape == (n,) and target.areas.dtype == np.float32
        assert set(np.unique(target.keypoints[..., 2])) <= {0.0, 1.0, 2.0}
        assert (target.boxes[:, 2:] >= target.boxes[:, :2]).all() and (target.areas > 0).all()
    elif task == "captioning":
        assert isinstance(target, tuple) and target
        assert all(isinstance(c, str) and c.strip() for c in target)
    else:
        assert task == "classification", f"no check for the targets of {task}"
        assert isinstance(target, int) and 0 <= target < len(data.meta.label_names)


def test_the_plugin_describes_itself(name: str) -> None:
    plugin = registry.get("dataset", name)
    assert registry.summary("dataset", name) and plugin.tasks
    assert isinstance(plugin.needs_root, bool)


def test_the_split_describes_itself(name: str, both: tuple[Dataset, Dataset]) -> None:
    for data, split in zip(both, ("train", "test")):
        assert (data.name, data.split) == (name, split)
        assert data.tasks == registry.get("dataset", name).tasks
        assert data.revision and 0 < len(data) <= LIMIT


def test_samples_are_as_documented(both: tuple[Dataset, Dataset]) -> None:
    for data in both:
        for i in range(len(data)):
            sample = data[i]
            assert sample.image.dtype == torch.uint8 and sample.image.shape[0] == 3
            hw = (int(sample.image.shape[1]), int(sample.image.shape[2]))
            assert hw == tuple(sample.size_px), "no size was asked for"
            targets = data.targets(i)
            assert set(targets) == set(data.tasks)
            for task, target in targets.items():
                _check_target(task, target, data, hw)


def test_ids_are_unique_and_splits_disjoint(both: tuple[Dataset, Dataset]) -> None:
    ids = [[d[i].id for i in range(len(d))] for d in both]
    images = [{d[i].image.numpy().tobytes() for i in range(len(d))} for d in both]
    assert len(set(ids[0])) == len(ids[0]) and len(set(ids[1])) == len(ids[1])
    assert not images[0] & images[1]


def test_the_same_sample_twice_is_equal(
    name: str, both: tuple[Dataset, Dataset], options: Callable[..., DataOptions]
) -> None:
    again = registry.get("dataset", name).open("train", options())
    assert again.revision == both[0].revision
    for i in (len(again) - 1, 0):
        a, b = both[0][i], again[i]
        assert a.id == b.id and torch.equal(a.image, b.image)
        first, second = both[0].targets(i), again.targets(i)
        assert set(first) == set(second) and all(_equal(first[t], second[t]) for t in first)


def test_a_limit_takes_the_first(name: str, options: Callable[..., DataOptions]) -> None:
    plugin = registry.get("dataset", name)
    few, more = plugin.open("train", options(limit=2)), plugin.open("train", options(limit=3))
    assert (len(few), len(more)) == (2, 3)
    assert [few[i].id for i in range(2)] == [more[i].id for i in range(2)]


def test_any_size_by_option(name: str, options: Callable[..., DataOptions]) -> None:
    size = (64, 96)
    data = registry.get("dataset", name).open("test", options(limit=2, image_size_px=size))
    sample = data[0]
    assert sample.image.shape == (3, *size)
    for task, target in data.targets(0).items():
        _check_target(task, target, data, size)


def test_no_root_is_one_line(name: str, tmp_path: Path) -> None:
    plugin = registry.get("dataset", name)
    if not plugin.needs_root:
        pytest.skip("embedded data need no root")
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(FcbenchError, match="(?i)root") as caught:
            plugin.open("train", DataOptions(root, tmp_path))
        assert "\n" not in str(caught.value)


def test_the_real_data(name: str) -> None:
    if not registry.get("dataset", name).needs_root:
        pytest.skip("embedded data")
    root = SHARED / REAL.get(name, name)
    if not root.is_dir():
        pytest.skip(f"needs ../shared/data/{root.name} beside the repository")
    options = DataOptions(root, SHARED, limit=3)
    data = registry.get("dataset", name).open("test", options)
    assert len(data) == 3
    for i in range(len(data)):
        sample = data[i]
        for task, target in data.targets(i).items():
            _check_target(task, target, data, tuple(sample.image.shape[1:]))


def test_a_missing_part_is_one_line_with_the_layout(name: str, tmp_path: Path) -> None:
    """Each first-level folder or file of a whole set, taken away, is missed: no split opens without its parts."""
    if name not in MAKERS:
        pytest.skip("embedded data")
    plugin, root = registry.get("dataset", name), tmp_path / "data"
    MAKERS[name](root)
    gone = tmp_path / "gone"
    missed = 0
    for part in sorted(root.iterdir()):
        part.rename(gone)
        for split in ("train", "test"):
            try:
                plugin.open(split, DataOptions(root, tmp_path))
            except FcbenchError as error:
                assert "Expected: ROOT/" in str(error) and "\n" not in str(error)
                missed += 1
        gone.rename(part)
    assert missed


def test_any_data_loader_can_have_it(both: tuple[Dataset, Dataset]) -> None:
    for data in both:
        again = pickle.loads(pickle.dumps(data))
        assert torch.equal(again[0].image, data[0].image)
