"""Readers of depth: nyuv2, rgbd."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
import scipy.io
import tiny_sets
import torch

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import DataOptions, Dataset
from fcbench.data.nyuv2 import clean_depth

REAL = Path(__file__).parents[3] / "shared" / "data" / "rgbd_room"
MAT = "nyu_depth_v2_labeled.mat"


def _open(name: str, root: Path, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    where = options.pop("cache_dir", root.parent)
    return registry.get("dataset", name).open(split, DataOptions(root, where, **options))


# --------------------------------------------------------------------------------------------- nyuv2
def test_nyu_frames_and_official_split(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    train, test = _open("nyuv2", tmp_path), _open("nyuv2", tmp_path, "test")
    assert (len(train), len(test)) == (4, 3)
    sample = test[0]
    assert sample.id == "nyu-0005" and sample.size_px == tiny_sets.SIZE
    depth = test.targets(0)["depth"]
    assert depth[7, 11].item() == pytest.approx(5 + 0.07 + 0.011), "row, then column"
    with h5py.File(tmp_path / MAT) as file:
        pixel = file["images"][4, :, 11, 7]
    assert sample.image[:, 7, 11].tolist() == pixel.tolist()


def test_nyu_depth_is_the_sensors_and_ends_at_10_m(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    depth = _open("nyuv2", tmp_path).targets(2)["depth"]
    assert depth[0, :2].tolist() == [0, 0] and bool((depth[1:] > 0).all())
    wrong = np.array([[np.nan, np.inf, -1, 0, 10, 9.5]])
    assert clean_depth(wrong).tolist() == [[0, 0, 0, 0, 0, 9.5]]


def test_nyu_states_the_crop_of_eigen(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    data = _open("nyuv2", tmp_path, "test")
    assert data.meta.max_depth_m == 10
    crop = np.array(data.meta.eval_crop) * (480, 480, 640, 640)
    np.testing.assert_allclose(crop, (45, 471, 41, 601))


def test_nyu_resized(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    data = _open("nyuv2", tmp_path, image_size_px=(40, 60))
    sample = data[0]
    assert sample.image.shape == (3, 40, 60) and sample.size_px == tiny_sets.SIZE
    assert data.targets(0)["depth"].shape == (40, 60)


@pytest.mark.parametrize("part", [MAT, "splits.mat"])
@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_half_of_nyu(tmp_path: Path, part: str, harm: str) -> None:
    tiny_sets.nyuv2(tmp_path)
    path = tmp_path / part
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        scipy.io.savemat(path, {"something": np.zeros(3)})
    with pytest.raises(FcbenchError, match=f"{part}.*cs.nyu.edu") as caught:
        _open("nyuv2", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_of_more_frames_than_there_are(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    frames = np.arange(1, 9)[:, None]
    scipy.io.savemat(tmp_path / "splits.mat", {"testNdxs": frames})
    with pytest.raises(FcbenchError, match="up to 8; .* holds 7"):
        _open("nyuv2", tmp_path, "test")


def test_images_and_depth_of_different_numbers(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    with h5py.File(tmp_path / MAT, "a") as file:
        del file["rawDepths"]
        file["rawDepths"] = np.zeros((6, 30, 20), np.float32)
    with pytest.raises(FcbenchError, match="not \\[N, 3, W, H\\]"):
        _open("nyuv2", tmp_path)


def test_a_file_that_vanishes_is_an_unreadable_frame(tmp_path: Path) -> None:
    tiny_sets.nyuv2(tmp_path)
    data = _open("nyuv2", tmp_path)
    (tmp_path / MAT).unlink()
    with pytest.raises(UnreadableSample, match="frame 1 in"):
        data[0]


# ---------------------------------------------------------------------------------------------- rgbd
def test_rgbd_millimetres_and_invalid_readings(tmp_path: Path) -> None:
    tiny_sets.rgbd(tmp_path)
    depth = _open("rgbd", tmp_path).targets(1)["depth"]
    assert depth.dtype == torch.float32
    assert depth[0, :3].tolist() == [0, 0, 0], "no reading, no reading, beyond 10 m"
    assert depth[0, 3].item() == pytest.approx(0.503)
    assert depth[1, 0].item() == pytest.approx(0.530)


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.zeros(tiny_sets.SIZE, np.uint8), "mode 'L': expected 16-bit"),
        (np.zeros((10, 15), np.uint16), "is 10x15, its image is 20x30"),
    ],
    ids=["8-bit", "size"],
)
def test_wrong_depth_maps(tmp_path: Path, pixels: np.ndarray, match: str) -> None:
    tiny_sets.rgbd(tmp_path)
    tiny_sets.write_map(tmp_path / "train" / "depth" / "0000.png", pixels)
    data = _open("rgbd", tmp_path)
    with pytest.raises(UnreadableSample, match=f"0000.png.*{match}"):
        data.targets(0)


def test_a_cut_depth_map(tmp_path: Path) -> None:
    tiny_sets.rgbd(tmp_path)
    path = tmp_path / "test" / "depth" / "0002.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableSample, match="0002.png"):
        _open("rgbd", tmp_path, "test").targets(2)


def test_a_frame_without_depth(tmp_path: Path) -> None:
    tiny_sets.rgbd(tmp_path)
    (tmp_path / "train" / "depth" / "0003.png").unlink()
    with pytest.raises(FcbenchError, match="no PNG for 0003.jpg.*millimetres"):
        _open("rgbd", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/rgbd_room beside the repository")
def test_the_real_room(tmp_path: Path) -> None:
    train, test = (_open("rgbd", REAL, split, cache_dir=tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (56, 24)
    depth = test.targets(0)["depth"]
    assert depth.shape == (240, 320) and depth.max() <= 10
    assert 0.5 < depth[depth > 0].median() < 3, "metres of a room"
