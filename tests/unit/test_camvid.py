"""The CamVid reader and the helpers that readers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from fcbench.core import registry
from fcbench.core.errors import FcbenchError, UnreadableSample
from fcbench.core.samples import VOID, DataOptions, Dataset, Pose
from fcbench.data.shared import images

REAL = Path(__file__).parents[3] / "shared" / "data" / "camvid"


def write_camvid(root: Path, n: int = 2, size: tuple[int, int] = (12, 16)) -> None:
    """A tiny CamVid: each folder `n` frames, every class and void in every mask."""
    rng = np.random.default_rng(0)
    for folder in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (root / folder / kind).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / "images" / f"{i:04d}.jpg")
            mask = (np.arange(size[0] * size[1]) % 12).astype(np.uint8).reshape(size)
            Image.fromarray(mask).save(root / folder / "masks" / f"{i:04d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_camvid(tmp_path / "camvid")
    return tmp_path / "camvid"


def _open(root: Path | None, split: Literal["train", "test"] = "train", **options: Any) -> Dataset:
    where = options.pop("cache_dir", root.parent if root else Path("unused"))
    return registry.get("dataset", "camvid").open(split, DataOptions(root, where, **options))


def test_train_is_train_and_val(root: Path) -> None:
    train, test = _open(root), _open(root, "test")
    assert [train[i].id for i in range(len(train))] == ["train/0000", "train/0001", "val/0000", "val/0001"]
    assert len(test) == 2
    assert len(train.meta.class_names) == 11


def test_void_and_classes(root: Path) -> None:
    mask = _open(root).targets(0)["segmentation"]
    assert mask.dtype == torch.uint8
    assert sorted(set(mask.flatten().tolist())) == [*range(11), VOID]
    expected = torch.arange(12 * 16).reshape(12, 16) % 12
    assert torch.equal(mask == VOID, expected == 11)


def test_resizing_takes_image_and_mask_along_but_not_the_original_size(root: Path) -> None:
    data = _open(root, image_size_px=(24, 20))
    sample = data[0]
    assert sample.image.shape == (3, 24, 20)
    assert data.targets(0)["segmentation"].shape == (24, 20)
    assert sample.size_px == (12, 16)


def test_limit_takes_the_first(root: Path) -> None:
    assert [s.id for s in [_open(root, limit=1)[0]]] == ["train/0000"]
    assert len(_open(root, limit=1)) == 1
    assert len(_open(root, limit=100)) == 4


def test_the_revision_changes_with_the_files(root: Path) -> None:
    before = _open(root).revision
    assert before == _open(root).revision
    victim = root / "train" / "images" / "0000.jpg"
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert _open(root).revision != before


# ------------------------------------------------------------------------------------- wrong inputs
def test_no_root() -> None:
    with pytest.raises(FcbenchError, match="--data-root DIR.*images"):
        _open(None)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="nowhere is not a directory.*Expected"):
        _open(tmp_path / "nowhere")


@pytest.mark.parametrize("gone", ["train/images", "val/images", "train/masks"])
def test_missing_folders(root: Path, gone: str) -> None:
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(FcbenchError, match=f"{gone} is missing"):
        _open(root)


def test_no_images(root: Path) -> None:
    for path in (root / "test" / "images").iterdir():
        path.unlink()
    with pytest.raises(FcbenchError, match="holds no images"):
        _open(root, "test")


def test_images_without_masks(root: Path) -> None:
    (root / "val" / "masks" / "0001.png").unlink()
    with pytest.raises(FcbenchError, match="no PNG for 0001.jpg"):
        _open(root)


def test_a_cut_image(root: Path) -> None:
    path = root / "train" / "images" / "0001.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    data = _open(root)
    assert data[0].id == "train/0000"
    with pytest.raises(UnreadableSample, match="0001.jpg"):
        data[1]


def test_an_empty_image(root: Path) -> None:
    (root / "train" / "images" / "0000.jpg").write_bytes(b"")
    data = _open(root)
    with pytest.raises(UnreadableSample, match="0000.jpg"):
        data[0]
    with pytest.raises(UnreadableSample, match="0000.jpg"):
        data.targets(0)


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros((11, 16), np.uint8), "0000.png is 11x16, its image is 12x16"),
        (np.full((12, 16), 12, np.uint8), "0000.png holds class index 12: allowed are 0 to 10"),
        (np.zeros((12, 16, 3), np.uint8), "0000.png has pixel mode 'RGB'"),
        (np.zeros((12, 16), np.uint16), "0000.png has pixel mode 'I;16'"),
    ],
    ids=["size", "class", "colours", "wide"],
)
def test_wrong_masks(root: Path, mask: np.ndarray, match: str) -> None:
    Image.fromarray(mask).save(root / "train" / "masks" / "0000.png")
    data = _open(root)
    with pytest.raises(UnreadableSample, match=match):
        data.targets(0)


def test_a_cut_mask(root: Path) -> None:
    path = root / "train" / "masks" / "0000.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnreadableSample, match="0000.png"):
        _open(root).targets(0)


# ------------------------------------------------------------------------------------------ helpers
def test_images_of_other_modes_become_rgb(tmp_path: Path) -> None:
    Image.new("LA", (4, 3), (100, 255)).save(tmp_path / "grey.png")
    image = images.read_image(tmp_path / "grey.png")
    assert image.shape == (3, 3, 4) and bool((image == 100).all())


def test_resizing_an_image_antialiases() -> None:
    stripes = torch.zeros(3, 8, 8, dtype=torch.uint8)
    stripes[..., ::2] = 200
    small = images.resize_image(stripes, (4, 2))
    assert small.dtype == torch.uint8
    assert bool(((small > 60) & (small < 140)).all()), "the mean, not one of the stripes"


def test_resizing_depth_makes_no_value_up() -> None:
    depth = torch.tensor([[0.0, 5.0], [2.0, 9.0]])
    big = images.resize_targets({"depth": depth}, (2, 2), (6, 4))["depth"]
    assert big.shape == (6, 4) and big.dtype == torch.float32
    assert set(big.flatten().tolist()) == {0.0, 5.0, 2.0, 9.0}
    assert big[0, 3] == 5.0 and big[5, 0] == 2.0


def test_resizing_a_pose_scales_x_y_and_area() -> None:
    pose = Pose(
        keypoints=np.array([[[2.0, 4.0, 2.0]] * 17], np.float32),
        boxes=np.array([[1.0, 2.0, 3.0, 4.0]], np.float32),
        areas=np.array([10.0], np.float32),
    )
    found = images.resize_targets({"pose": pose, "captioning": ("a",)}, (10, 20), (20, 60))
    new = found["pose"]
    assert new.keypoints[0, 0].tolist() == [6.0, 8.0, 2.0]
    assert new.boxes[0].tolist() == [3.0, 4.0, 9.0, 8.0]
    assert new.areas.tolist() == [60.0]
    assert new.keypoints.dtype == np.float32 and new.areas.dtype == np.float32
    assert found["captioning"] == ("a",)


# --------------------------------------------------------------------------------------- the real one
@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/camvid beside the repository")
def test_the_real_camvid(tmp_path: Path) -> None:
    train, test = _open(REAL, cache_dir=tmp_path), _open(REAL, "test", cache_dir=tmp_path)
    assert (len(train), len(test)) == (468, 233)
    assert test[7].image.shape == (3, 360, 480)
    mask = test.targets(7)["segmentation"]
    assert mask.shape == (360, 480)
    assert set(mask.unique().tolist()) <= {*range(11), VOID}
    sky, road = (mask == 0).nonzero(), (mask == 3).nonzero()
    assert sky[:, 0].float().mean() < road[:, 0].float().mean(), "the sky is above the road"
