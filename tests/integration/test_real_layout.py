"""A data set on disk and a timm backbone, through the command line: the path of real photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from refusals import refused

from fcbench.results import table

Tiny = Callable[..., Result]
OPTIONS = (
    "--encoder timm:test_resnet --weights random --dataset camvid --task segmentation "
    "--codec uniform --split-point stage3"
).split()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CamVid's layout: 4 train, 2 val, 3 test frames of 47 x 64 pixels."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        for folder in ("images", "masks"):
            (tmp_path / "data" / split / folder).mkdir(parents=True)
        for i in range(n):
            frame = rng.integers(0, 255, (47, 64, 3), dtype=np.uint8)
            mask = rng.integers(0, 12, (47, 64), dtype=np.uint8)
            home = tmp_path / "data" / split
            Image.fromarray(frame).save(home / "images" / f"{split}{i}.jpg")
            Image.fromarray(mask).save(home / "masks" / f"{split}{i}.png")
    return tmp_path / "data"


def test_run_on_photographs(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root)
    assert result.exit_code == 0, result.output
    row = table.load(tmp_path / "out").query("kind == 'coded' and primary").iloc[0]
    assert (row.n_samples, row.n_px) == (3, 3 * 47 * 64)
    assert row.encoder == "timm:test_resnet" and row.split == "stage3"


def test_bpp_is_by_the_original_image(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    """At another image size the features change, the pixels that bpp divides by do not."""
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root, "--image-size", "32x48")
    assert result.exit_code == 0, result.output
    row = table.load(tmp_path / "out").iloc[0]
    assert (row.image_size, row.n_px) == ("32x48", 3 * 47 * 64)


def test_unreadable_image_stops_the_run(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    bad = root / "train" / "images" / "train1.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    assert "train1.jpg" in refused(tiny(tmp_path / "out", *OPTIONS, "--data-root", root))


def test_unreadable_image_is_left_out_by_option(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    bad = root / "test" / "images" / "test1.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root, "--on-bad-image", "skip")
    assert result.exit_code == 0, result.output
    assert "test1.jpg" in result.output and "1 of 3 test samples" in result.output
    assert set(table.load(tmp_path / "out").n_samples) == {2}


def test_mask_of_another_size(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    path = root / "train" / "masks" / "train2.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    assert "train2.png" in refused(tiny(tmp_path / "out", *OPTIONS, "--data-root", root))


def test_images_of_two_sizes_are_found_before_any_work(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    """The last training image."""
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        path = next((root / "val" / kind).glob("val1.*"))
        Image.new(mode, (48, 40)).save(path)
    result = tiny(tmp_path / "out", *OPTIONS, "--data-root", root, "--cache-dir", tmp_path / "cache")
    line = refused(result)
    assert "val/images/val1.jpg is 40x48" in line and "--image-size" in line
    assert not list((tmp_path / "cache").rglob("features/*"))


def test_class_index_out_of_range(tiny: Tiny, root: Path, tmp_path: Path) -> None:
    path = root / "test" / "masks" / "test0.png"
    Image.fromarray(np.full((47, 64), 99, np.uint8)).save(path)
    line = refused(tiny(tmp_path / "out", *OPTIONS, "--data-root", root))
    assert "test0.png" in line and "99" in line
