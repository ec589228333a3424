"""Annotation files in COCO's format: read whole, indexed by image."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle
from torch import Tensor, from_numpy

from fcbench.core.samples import VOID, Objects, Pose
from fcbench.data.shared.layout import Layout

EMPTY = np.zeros(6)  # A polygon that holds nothing
_MAX_PX = 1 << 28


@dataclass(frozen=True, slots=True)
class Image:
    """An image of an annotation file."""

    id: int
    file_name: str
    size_px: tuple[int, int]  # (H, W)


@dataclass(frozen=True, slots=True)
class Instance:
    """A region of one class; `region` is what pycocotools takes: polygons as arrays of x, y, or a run-length code."""

    label: int  # index in the class names, 0 is the background
    region: Any


def read(path: Path, layout: Layout) -> dict[str, Any]:
    """An annotation file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise layout.error(path, f"is cut short or not JSON ({exc})") from exc
    if not isinstance(content, dict) or {"images", "annotations"} - content.keys():
        raise layout.error(path, "lists no images or no annotations")
    return content


def images_of(content: Mapping[str, Any]) -> list[Image]:
    """The images of a file, in its order. Raises ValueError: an absurd size, a name that leads out of the folder."""
    images = [Image(int(i["id"]), str(i["file_name"]), (int(i["height"]), int(i["width"]))) for i in content["images"]]
    for image in images:
        name = PurePosixPath(image.file_name)
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"file name {image.file_name!r:.80} does not stay in the folder of the images")
        if min(image.size_px) < 1 or image.size_px[0] * image.size_px[1] > _MAX_PX:
            raise ValueError(f"image {image.file_name} of {image.size_px[0]}x{image.size_px[1]} pixels")
    return images


def has(content: Mapping[str, Any], field: str) -> bool:
    """Whether an annotation has a value in a field; a row may lack it, or leave it empty."""
    return any(row.get(field) not in (None, [], {}) for row in content["annotations"])


def _by_image(content: Mapping[str, Any], images: Iterable[Image], field: str) -> dict[int, list[Any]]:
    """Annotations by image. Raises KeyError: none has a value in the field."""
    rows: dict[int, list[Any]] = {i.id: [] for i in images}
    for row in content["annotations"]:
        if row["image_id"] in rows:
            rows[row["image_id"]].append(row)
    if content["annotations"] and not has(content, field):
        raise KeyError(field)
    return rows


def class_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """``background`` and the categories, by their ids."""
    rows = sorted(content["categories"], key=lambda c: c["id"])
    return ("background", *(str(c["name"]) for c in rows))


def instances(content: Mapping[str, Any], images: Iterable[Image]) -> dict[int, tuple[Instance, ...]]:
    """Regions by image, including crowds, whose class is known; annotations without a segmentation have none."""
    ids = sorted(int(c["id"]) for c in content["categories"])
    label, sizes = {category: i for i, category in enumerate(ids, 1)}, {i.id: i.size_px for i in images}

    def one(row: Mapping[str, Any], size_px: tuple[int, int]) -> Instance:
        return Instance(label[row["category_id"]], _region(row["segmentation"], size_px))

    return {
        key: tuple(one(r, sizes[key]) for r in rows if r.get("segmentation"))
        for key, rows in _by_image(content, images, "segmentation").items()
    }


def _region(value: Any, size_px: tuple[int, int]) -> Any:
    """A region as pycocotools takes it, which crashes for what is none. Raises ValueError: a run-length code of another
    size or of too few or too many pixels, polygons that lie far outside of the image or are no numbers."""
    if isinstance(value, dict):
        counts = value["counts"] if isinstance(value["counts"], list) else _counts(str(value["counts"]))
        if tuple(value["size"]) != size_px or min(counts, default=0) < 0 or sum(counts) != size_px[0] * size_px[1]:
            raise ValueError(f"a run-length code of size {value['size']!r:.40} does not fill the image, {size_px}")
        return value
    polygons = [_finite(p) for p in value if len(p) >= 6]
    side = max(size_px)
    if any(p.ndim != 1 or p.min() < -side or p.max() > 2 * side for p in polygons):
        raise ValueError("a polygon lies far outside of its image")
    return polygons


def _counts(text: str) -> list[int]:
    """Runs of a compressed run-length code: five bits a character, low first, each the difference to the one before the
    last."""
    counts, value, shift = list[int](), 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10 != 0) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _finite(values: Any) -> np.ndarray:
    """Numbers as float64. Raises ValueError: one is NaN or infinite, or none is a number."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a number is NaN or infinite")
    return array


def semantic_mask(regions: Iterable[Instance], size_px: tuple[int, int]) -> Tensor:
    """Class of each pixel, uint8 [H, W]: 0 background, `VOID` where regions of two classes overlap. The annotations do
    not say which region is in front (torchvision's segmentation references leave overlaps out too)."""
    mask = np.zeros(size_px, np.uint8)
    for each in regions:
        here = _decode(each.region, size_px)
        clash = here & (mask != 0) & (mask != each.label)
        mask[here] = each.label
        mask[clash] = VOID
    return from_numpy(mask)


def _decode(region: Any, size_px: tuple[int, int]) -> np.ndarray:
    """Bool [H, W]."""
    return rle.decode(_code(region, size_px)).astype(bool)


def category_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The categories, by their ids."""
    return class_names(content)[1:]


def objects(
    content: Mapping[str, Any], images: Iterable[Image], with_regions: bool = False, n_keypoints: int = 0
) -> dict[int, Objects]:
    """Annotated objects by image, including crowds, which COCO's evaluation needs. `with_regions`: include the masks in
    the file's form (see `with_codes`), empty where there is none. `n_keypoints`: K; 0 for objects without keypoints,
    else an object without them has K that are not labelled, which COCO's evaluation ignores."""
    ids = sorted(int(c["id"]) for c in content["categories"])
    label, sizes = {category: i for i, category in enumerate(ids)}, {i.id: i.size_px for i in images}
    unseen = [0] * 3 * n_keypoints

    def of_image(key: int, rows: list[Any]) -> Objects:
        return Objects(
            sizes[key],
            np.array([label[r["category_id"]] for r in rows], np.int64),
            _finite([r["bbox"] for r in rows]).reshape(-1, 4),
            _finite([r["area"] for r in rows]),
            np.array([bool(r.get("iscrowd", 0)) for r in rows], bool),
            [_region(r.get("segmentation") or [], sizes[key]) for r in rows] if with_regions else (),
            _finite([r.get("keypoints") or unseen for r in rows]).reshape(-1, n_keypoints, 3) if n_keypoints else None,
        )

    field = "segmentation" if with_regions else "keypoints" if n_keypoints else "bbox"
    return {key: of_image(key, rows) for key, rows in _by_image(content, images, field).items()}


def with_codes(objects: Objects) -> Objects:
    """The same objects, with masks as run-length codes."""
    return replace(objects, regions=[_code(region, objects.size_px) for region in objects.regions])


def _code(region: Any, size_px: tuple[int, int]) -> Any:
    """Run-length code of a mask in the file's form: polygons, counts, or the code itself."""
    if isinstance(region, dict) and not isinstance(region["counts"], list):
        return region
    codes = rle.frPyObjects(region or [EMPTY], *size_px)
    return rle.merge(codes) if isinstance(codes, list) else codes


def keypoint_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the keypoints, the same for all categories that have some. Raises ValueError: they differ."""
    names = {tuple(str(name) for name in c["keypoints"]) for c in content["categories"] if c.get("keypoints")}
    if len(names) != 1:
        raise ValueError(f"its categories name {len(names)} different lists of keypoints, expected one")
    return names.pop()


def poses(content: Mapping[str, Any], images: Iterable[Image], n_keypoints: int = 17) -> dict[int, Pose]:
    """Persons by image: those with a labelled keypoint that are not crowds, as count in COCO's evaluation."""
    sizes = {i.id: i.size_px for i in images}
    by_image = {}
    for key, rows in _by_image(content, images, "keypoints").items():
        persons = [p for r in rows if r.get("keypoints") and (p := _person(r, sizes[key], n_keypoints)) is not None]
        by_image[key] = Pose(
            np.asarray([p[0] for p in persons], np.float32).reshape(-1, n_keypoints, 3),
            np.asarray([p[1] for p in persons], np.float32).reshape(-1, 4),
            np.asarray([p[2] for p in persons], np.float32),
        )
    return by_image


def _person(
    row: Mapping[str, Any], size_px: tuple[int, int], n_keypoints: int
) -> tuple[np.ndarray, list[float], float] | None:
    """Keypoints [K, 3], box (x0, y0, x1, y1) clipped to the image, area; None for persons that do not count."""
    keypoints = _finite(row["keypoints"]).reshape(n_keypoints, 3)
    x, y, w, h = (float(v) for v in _finite(row["bbox"]))
    x1, y1 = min(x + w, size_px[1]), min(y + h, size_px[0])
    box = [max(x, 0.0), max(y, 0.0), x1, y1]
    empty = box[2] <= box[0] or box[3] <= box[1] or row["area"] <= 0
    if row.get("iscrowd") or empty or not (keypoints[:, 2] > 0).any():
        return None
    return keypoints, box, float(row["area"])


def captions(content: Mapping[str, Any], images: Iterable[Image]) -> dict[int, tuple[str, ...]]:
    """Captions by image, stripped of white space."""
    return {
        key: tuple(text for r in rows if (text := str(r.get("caption") or "").strip()))
        for key, rows in _by_image(content, images, "caption").items()
    }
