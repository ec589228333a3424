"""Images and annotations that strangers may give: read as said, or refused in one line."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from fcbench.core.errors import UnreadableSample
from fcbench.data.shared import coco_format
from fcbench.data.shared.images import image_size, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


RGB = Image.fromarray(COLOURS)
FRAMES = [Image.fromarray(np.full((9, 13, 3), v, np.uint8)) for v in (10, 200)]
READ = {
    "palette": (saved(RGB.quantize(16), "png"), np.asarray(RGB.quantize(16).convert("RGB"))),
    "transparency dropped": (saved(Image.fromarray(np.dstack([COLOURS, COLOURS[..., 0]])), "png"), COLOURS),
    "grey with alpha": (saved(RGB.convert("LA"), "png"), np.asarray(RGB.convert("L").convert("RGB"))),
    "one bit": (saved(RGB.convert("1"), "png"), np.asarray(RGB.convert("1").convert("RGB"))),
    "first frame": (saved(FRAMES[0], "png", save_all=True, append_images=FRAMES[1:]), np.asarray(FRAMES[0])),
    "one pixel": (saved(RGB.crop((0, 0, 1, 1)), "png"), COLOURS[:1, :1]),
    "16 bit": (saved(Image.fromarray(np.full((9, 13), 257 * 99, np.uint16)), "png"), np.full((9, 13, 3), 99)),
}


@pytest.mark.parametrize("name", list(READ))
def test_pictures_are_read_as_rgb_of_8_bits(name: str, tmp_path: Path) -> None:
    content, expected = READ[name]
    path = tmp_path / "a\n\x1b[31m.png"
    path.write_bytes(content)
    found = read_image(path)
    assert found.dtype == torch.uint8 and found.shape[1:] == image_size(path) == expected.shape[:2]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_cmyk_is_near_its_colours(tmp_path: Path) -> None:
    grey = Image.new("RGB", (16, 16), (90, 90, 90))
    (tmp_path / "a.jpg").write_bytes(saved(grey.convert("CMYK"), "jpeg"))
    assert (read_image(tmp_path / "a.jpg").float() - 90).abs().max() < 8


REFUSED = {
    "bomb": bomb(60_000),
    "claims more than it holds": bomb(2_000),
    "no pixels": bomb(0),
    "cut": saved(RGB, "png")[:-30],
    "cut jpeg": saved(RGB.resize((64, 64)), "jpeg")[:400],
    "text": b"<html>404</html>",
    "empty": b"",
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_pictures_that_are_none_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(REFUSED[name])
    with pytest.raises(UnreadableSample, match="bad.png"):
        read_image(tmp_path / "bad.png")


# ---------------------------------------------------------------------------------------- annotations
FULL = {"size": [20, 30], "counts": [0, 600]}
GOOD = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 8], "area": 40.0, "segmentation": FULL}
GOOD["keypoints"] = [5, 6, 2] * 17


def parsed(image: dict[str, Any], row: dict[str, Any]) -> None:
    """Read a file of one image and one object as all tasks do, its numbers as JSON gives them."""
    whole = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 30, **image}
    names = [f"k{i}" for i in range(17)]
    content = {
        "images": [whole],
        "annotations": [{k: v for k, v in (GOOD | row).items() if v is not None}],
        "categories": [{"id": 3, "name": "c", "keypoints": names}],
    }
    content = json.loads(json.dumps(content))
    images = coco_format.images_of(content)
    for instance in coco_format.instances(content, images)[1]:
        coco_format.semantic_mask([instance], images[0].size_px)
    coco_format.poses(content, images)
    coco_format.with_codes(coco_format.objects(content, images, with_regions=True, n_keypoints=17)[1])


def code(*size: int) -> str:
    return str(rle.encode(np.asfortranarray(np.ones(size, np.uint8)))["counts"].decode())


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"bbox": [-5, -5, 400, 400]},
        {"bbox": [100, 100, 5, 5]},
        {"segmentation": [[-3, -3, 40, -3, 40, 30, -3, 30]]},
        {"segmentation": {"size": [20, 30], "counts": code(20, 30)}},
        {"segmentation": [[1, 2, 3, 4]]},
    ],
)
def test_boxes_and_polygons_may_leave_their_image(row: dict[str, Any]) -> None:
    parsed({}, row)


@pytest.mark.parametrize("key", list(GOOD))
def test_an_object_that_lacks_a_key_is_refused(key: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        parsed({}, {key: None})


@pytest.mark.parametrize(
    ("image", "row"),
    [
        ({"height": 0}, {}),
        ({"height": -20}, {}),
        ({"height": 1 << 40}, {}),
        ({"file_name": "../../etc/passwd"}, {}),
        ({"file_name": "/etc/passwd"}, {}),
        ({}, {"bbox": [float("nan"), 0, 1, 1]}),
        ({}, {"bbox": [0, 0, float("inf"), 1]}),
        ({}, {"bbox": [0, 0, 1]}),
        ({}, {"area": float("nan")}),
        ({}, {"keypoints": [float("nan")] * 51}),
        ({}, {"keypoints": [1, 2, 2]}),
        ({}, {"segmentation": [[1e300, 0, 0, 1e300, 1, 1]]}),
        ({}, {"segmentation": [[float("nan")] * 6]}),
        ({}, {"segmentation": {"size": [1 << 20, 1 << 20], "counts": [0, 400]}}),
        ({}, {"segmentation": {"size": [20, 20], "counts": [0, 400]}}),
        ({}, {"segmentation": {"size": [20, 30], "counts": [0, 10**9]}}),
        ({}, {"segmentation": {"size": [20, 30], "counts": [3]}}),
        ({}, {"segmentation": {"size": [20, 30], "counts": [700, -100]}}),
        ({}, {"segmentation": {"size": [20, 30], "counts": code(100, 100)}}),
        ({}, {"segmentation": {"size": [20, 30], "counts": "\x7f~}" * 40}}),
    ],
)
def test_annotations_that_would_crash_a_library_are_refused(image: dict[str, Any], row: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):  # what readers of annotation files turn into one line
        parsed(image, row)
