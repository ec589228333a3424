"""Reading pictures: bit depths, EXIF orientation, what is no picture at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from fcbench.core.errors import UnreadableSample
from fcbench.data.shared.images import image_size, read_aligned_image, read_image

GREY = np.add.outer(np.arange(24), 5 * np.arange(40)).astype(np.uint8)


def _saved(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(array))
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_16_bits_are_the_picture_of_8_bits(tmp_path: Path, suffix: str, n_channels: int) -> None:
    if suffix == ".tif" and n_channels == 3:
        pytest.skip("Pillow reads no 16-bit colour TIFF")
    grey = GREY if n_channels == 1 else np.stack([GREY, GREY[::-1], GREY // 2], -1)
    expected = read_image(_saved(tmp_path / f"8{suffix}", grey))
    found = read_image(_saved(tmp_path / f"16{suffix}", grey.astype(np.uint16) * 257))
    assert torch.equal(found, expected)
    between = read_image(_saved(tmp_path / f"b{suffix}", grey.astype(np.uint16) * 257 + 100))
    assert (between.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_range_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(GREY.astype(dtype)).save(path)
    with pytest.raises(UnreadableSample, match="a.tif: pixel mode '[FI]' has no known range"):
        read_image(path)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_exif_orientation_is_honoured(tmp_path: Path, turn: int, bits: int) -> None:
    transposed: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: a[::-1, ::-1],
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].T,
        8: np.rot90,
    }
    picture = Image.fromarray(GREY if bits == 8 else GREY.astype(np.uint16) * 257)
    exif = picture.getexif()
    exif[ExifTags.Base.Orientation] = turn
    picture.save(tmp_path / "a.png", exif=exif)
    found, expected = read_image(tmp_path / "a.png"), transposed[turn](GREY)
    np.testing.assert_array_equal(found[1], expected)
    assert image_size(tmp_path / "a.png") == expected.shape


def test_a_turned_image_does_not_fit_targets_of_its_pixels(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY)
    picture.save(tmp_path / "plain.jpg")
    assert read_aligned_image(tmp_path / "plain.jpg").shape == (3, 24, 40)
    exif = picture.getexif()
    exif[ExifTags.Base.Orientation] = 3
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(UnreadableSample, match="turned.jpg has EXIF orientation 3.*pixels as stored"):
        read_aligned_image(tmp_path / "turned.jpg")


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_data_turn_nothing(tmp_path: Path, damage: bytes) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=damage)
    assert image_size(tmp_path / "a.jpg") == (24, 40)
    assert read_image(tmp_path / "a.jpg").shape == (3, 24, 40)


@pytest.mark.timeout(10)
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for read in (read_image, image_size):
        with pytest.raises(UnreadableSample, match="cannot read image .*a.jpg: not a regular file"):
            read(tmp_path / "a.jpg")
