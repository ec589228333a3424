"""The contract of data sets, and the stricter rules of this house, tried on every built-in data set."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fcbench.core import registry
from fcbench.core.errors import FcbenchError
from fcbench.core.samples import DataOptions
from fcbench.testing.datasets import CHECKS, LIMIT, Both, DatasetContract, Options, check_sample

SHARED = Path(__file__).parents[3] / "shared" / "data"

TINY_SETS = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "tiny_sets.py"))
MAKERS: dict[str, Callable[[Path], None]] = TINY_SETS["MAKERS"]
"""Data set on disk -> writes a tiny one in the official layout."""
REAL = {"coco": "coco_tiny", "coco_voc": "coco_tiny", "rgbd": "rgbd_room", "imagenet1k": "imagenet_sample"}
"""Data set -> its folder under ../shared/data, where that has another name."""


class HouseRules(DatasetContract):
    """Official layouts on disk, real data where they are at hand, message texts."""

    maker: ClassVar[str] = ""
    """Another maker in tests/unit/tiny_sets.py than the data set's own."""

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, name: str, tmp_path_factory: pytest.TempPathFactory) -> Options:
        folder = tmp_path_factory.mktemp(name)
        root = None
        if registry.get("dataset", name).needs_root:
            root = SHARED / name
            if name in MAKERS:
                root = folder / "data"
                (TINY_SETS[cls.maker] if cls.maker else MAKERS[name])(root)
            elif not root.is_dir():
                pytest.skip(f"data set {name}: no maker of a tiny set in tests/unit/tiny_sets.py, no {root}")

        def make(**changes: Any) -> DataOptions:
            return DataOptions(root, folder / "cache", **{"limit": LIMIT, **changes})

        return make

    def test_the_plugin_says_what_it_is(self, name: str, both: Both) -> None:
        plugin = registry.get("dataset", name)
        assert registry.summary("dataset", name)
        left = {"instance_segmentation"} if name == "folder" else set()  # its masks have another source there
        for data in both:
            assert data.tasks == tuple(t for t in plugin.tasks if t not in left) and set(data.tasks) <= set(CHECKS)

    def test_images_keep_their_size_unless_asked(self, both: Both) -> None:
        for data in both:
            for sample in map(data.__getitem__, range(len(data))):
                assert tuple(sample.image.shape[1:]) == tuple(sample.size_px), "no size was asked for"

    def test_no_root_is_one_line(self, name: str, tmp_path: Path) -> None:
        plugin = registry.get("dataset", name)
        if not plugin.needs_root:
            pytest.skip("embedded data need no root")
        for root in (None, tmp_path / "nowhere", tmp_path):
            with pytest.raises(FcbenchError, match="(?i)root") as caught:
                plugin.open("train", DataOptions(root, tmp_path))
            assert "\n" not in str(caught.value)

    def test_the_real_data(self, name: str, tmp_path: Path) -> None:
        if not registry.get("dataset", name).needs_root:
            pytest.skip("embedded data")
        root = SHARED / REAL.get(name, name)
        if not root.is_dir():
            pytest.skip(f"needs ../shared/data/{root.name} beside the repository")
        data = registry.get("dataset", name).open("test", DataOptions(root, tmp_path, limit=3))
        assert len(data) == 3
        for i in range(len(data)):
            _, h, w = data[i].image.shape
            check_sample(data, i, (h, w))

    def test_a_missing_part_is_one_line_with_the_layout(self, name: str, tmp_path: Path) -> None:
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


class TestClassFolders(HouseRules):
    """The data set ``folder`` in its other layout, which has one task."""

    plugin = "folder"
    maker = "folder"

    def test_the_plugin_says_what_it_is(self, name: str, both: Both) -> None:
        assert all(data.tasks == ("classification",) for data in both)


for _name in registry.names("dataset"):
    if _name in ("hf", "letterbox", "extracted"):  # data behind a name: test_data_hf, test_data_letterbox; no images
        continue
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (HouseRules,), {"plugin": _name})
