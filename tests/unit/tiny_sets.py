"""Tiny data sets in the official layouts, written for tests of their readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

SIZE = (20, 30)  # H, W
SYNSETS = ("n01440764", "n02084071", "n03000684")


def picture(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """An image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, pixels: np.ndarray) -> None:
    """A PNG of one plane."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def camvid(root: Path) -> None:
    rng = np.random.default_rng(1)
    for k, folder in enumerate(("train", "val", "test")):
        for i in range(3):
            picture(root / folder / "images" / f"{folder}{i}.jpg", 10 * k + i)
            mask = rng.integers(0, 12, SIZE, dtype=np.uint8)
            write_map(root / folder / "masks" / f"{folder}{i}.png", mask)


def ade20k(root: Path, n: int = 4) -> None:
    """Masks run through 0 (void) to 150."""
    for k, folder in enumerate(("training", "validation")):
        for i in range(n):
            stem = f"ADE_{folder[:5]}_{i:08d}"
            picture(root / "images" / folder / f"{stem}.jpg", 10 * k + i)
            mask = (np.arange(SIZE[0] * SIZE[1]) % 151).astype(np.uint8).reshape(SIZE)
            write_map(root / "annotations" / folder / f"{stem}.png", mask)
    rows = [f"{i}\t0.1\t10\t2\t1\tclass{i}, other" for i in range(1, 151)]
    info = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]
    (root / "objectInfo150.txt").write_text("\n".join(info) + "\n", encoding="utf-8")


def voc(root: Path, n: int = 3) -> None:
    """Masks run through 0 to 20 and 255 (void); one image has no mask and is in no list."""
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for k, split in enumerate(("train", "val")):
        stems = [f"2007_{k}{i:05d}" for i in range(n)]
        for i, stem in enumerate(stems):
            picture(root / "JPEGImages" / f"{stem}.jpg", 10 * k + i)
            mask = np.array([*range(21), 255], np.uint8)[np.arange(SIZE[0] * SIZE[1]) % 22].reshape(SIZE)
            write_map(root / "SegmentationClass" / f"{stem}.png", mask)
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    picture(root / "JPEGImages" / "2007_9.jpg", 99)


def rgbd(root: Path, n: int = 4) -> None:
    """Depth 500, 501, ... mm; the first row 0, 65535, 10001 mm."""
    for k, split in enumerate(("train", "test")):
        for i in range(n):
            picture(root / split / "rgb" / f"{i:04d}.jpg", 10 * k + i)
            depth = (500 + np.arange(SIZE[0] * SIZE[1])).astype(np.uint16).reshape(SIZE)
            depth[0, :3] = (0, 65535, 10001)
            write_map(root / split / "depth" / f"{i:04d}.png", depth)


def folder(root: Path, splits: tuple[str, ...] = ("train", "test"), n: int = 3) -> None:
    for k, split in enumerate(splits or ("",)):
        for c, name in enumerate(("cat", "dog", "owl")):
            for i in range(n):
                picture(root / split / name / f"{i}.jpg", 100 * k + 10 * c + i)


def imagenet(root: Path, flat: bool = False) -> None:
    """Three synsets, two validation images each; `flat` with the development kit instead of synset folders."""
    for c, synset in enumerate(SYNSETS):
        for i in range(3):
            picture(root / "train" / synset / f"{synset}_{i}.JPEG", 10 * c + i)
    for i in range(6):
        name = f"ILSVRC2012_val_{i + 1:08d}.JPEG"
        home = root / "val" if flat else root / "val" / SYNSETS[i % 3]
        picture(home / name, 100 + i)
    if flat:
        devkit(root / "ILSVRC2012_devkit_t12" / "data")


OF_1000 = ("n01440764", "n01443537", "n15075141")
"""Synsets of ILSVRC 2012: the first two, and the last."""


def imagenet1k(root: Path, n: int = 4) -> None:
    """Images of ImageNet's classes, the synset in their names."""
    for i, split in enumerate(("train", "test")):
        for j in range(n):
            picture(root / split / f"{OF_1000[j % len(OF_1000)]}_{j + 1}.png", 10 * i + j)


def devkit(home: Path) -> None:
    """Its numbers of the classes are not in the order of the synsets; a fourth one is an inner node."""
    home.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.zeros((4, 1), dtype=kinds)
    for row, values in enumerate([(1, SYNSETS[2], 0), (2, SYNSETS[0], 0), (3, SYNSETS[1], 0)]):
        synsets[row, 0] = values
    synsets[3, 0] = (1001, "n00001740", 3)
    scipy.io.savemat(home / "meta.mat", {"synsets": synsets})
    truth = home / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n3\n1\n2\n3\n1\n", encoding="ascii")


def nyuv2(root: Path, n: int = 7) -> None:
    """HDF5 with MATLAB's reversed axes; the last three frames test; raw depth is frame + row / 100 + column / 1000."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    rows, columns = np.indices(SIZE)
    depth = 1 + np.arange(n)[:, None, None] + rows / 100 + columns / 1000  # [N, H, W]
    depth[:, 0, :2] = (0, 10)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        images = rng.integers(0, 256, (n, 3, *SIZE), dtype=np.uint8)
        file["images"] = images.transpose(0, 1, 3, 2)
        file["rawDepths"] = depth.astype(np.float32).transpose(0, 2, 1)
        file["depths"] = np.full((n, SIZE[1], SIZE[0]), 5, np.float32)
    first, last = np.arange(1, n - 2)[:, None], np.arange(n - 2, n + 1)[:, None]
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": first, "testNdxs": last})


# ---------------------------------------------------------------------------------------------- coco
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
KEYPOINTS = [10, 5, 2] + [12, 6, 1] + [0, 0, 0] * 15


def box_polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def coco_annotations(images: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Of every image: a dog over a person's corner, a crowd; two captions. Even images have a person to be counted."""
    rows: dict[str, list[dict[str, Any]]] = {k: [] for k in ("instances", "person_keypoints", "captions")}
    for image in images:
        key = image["id"]
        base = {"image_id": key, "iscrowd": 0, "area": 80.0}
        person = {
            **base,
            "id": 10 * key,
            "category_id": 1,
            "bbox": [8, 2, 10, 8],
            "segmentation": box_polygon(8, 2, 10, 8),
        }
        dog = {
            **base,
            "id": 10 * key + 1,
            "category_id": 18,
            "bbox": [14, 6, 8, 8],
            "segmentation": box_polygon(14, 6, 8, 8),
        }
        crowd = {
            **base,
            "id": 10 * key + 2,
            "category_id": 1,
            "bbox": [0, 18, 30, 2],
            "iscrowd": 1,
            "segmentation": {"size": list(SIZE), "counts": _bottom_rows(2)},
        }
        unseen = {**person, "id": 10 * key + 3, "keypoints": [0] * 51}
        counted = {**person, "keypoints": KEYPOINTS, "num_keypoints": 2}
        rows["instances"] += [person, dog, crowd]
        rows["person_keypoints"] += [unseen, {**crowd, "keypoints": [0] * 51}]
        rows["person_keypoints"] += [counted] if key % 2 == 0 else []
        rows["captions"] += [
            {"image_id": key, "id": 10 * key + i, "caption": f" Dog {i} of {key}.\n"} for i in range(2)
        ]
    return rows


def _bottom_rows(n: int) -> list[int]:
    """Uncompressed run lengths, column by column, of a mask of the lowest n rows."""
    high = SIZE[0] - n
    return [high, n] * SIZE[1]


def coco(root: Path, splits: tuple[str, ...] = ("train2017", "val2017")) -> None:
    """Five images a split."""
    for k, tag in enumerate(splits):
        images: list[dict[str, Any]] = [
            {"id": 100 * k + i, "file_name": f"{100 * k + i:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for i in range(5)
        ]
        for image in images:
            picture(root / tag / image["file_name"], image["id"])
        (root / "annotations").mkdir(exist_ok=True)
        for kind, rows in coco_annotations(images).items():
            content = {"images": images, "annotations": rows, "categories": CATEGORIES}
            path = root / "annotations" / f"{kind}_{tag}.json"
            path.write_text(json.dumps(content), encoding="utf-8")


# ---------------------------------------------------------------------- a folder with targets of all tasks
SKELETON = ("beak", "left_wing", "right_wing", "tail")


def folder_of_all(
    root: Path, splits: tuple[str, ...] = ("train", "test"), n: int = 3, size: tuple[int, int] = SIZE
) -> None:
    """Images in two class folders; masks of three classes; depth as PNG or .npy; birds of 4 keypoints; captions."""
    (root / "images").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("sky\ntree\nbird\n")
    (root / "depth.json").write_text('{"metres_per_unit": 0.01, "max_m": 8}')
    for k, split in enumerate(splits or ("",)):
        rows: list[dict[str, Any]] = []
        for c, name in enumerate(("crow", "owl")):
            for i in range(n):
                seed = 100 * k + 10 * c + i
                picture(root / split / "images" / name / f"{i}.png", seed, size)
                mask = (np.arange(size[0] * size[1]) % 4).astype(np.uint8).reshape(size)
                write_map(root / split / "masks" / name / f"{i}.png", np.where(mask == 3, 255, mask).astype(np.uint8))
                _depth(root / split / "depth" / name / f"{i}.png", size, as_array=bool(i % 2))
                rows.append({"id": seed, "file_name": f"{name}/{i}.png", "height": size[0], "width": size[1]})
        _birds(root / split, rows, size)


def _depth(path: Path, size: tuple[int, int], as_array: bool) -> None:
    """Centimetres from 100 on; the first pixels are invalid: 0, and one beyond 8 m."""
    depth = (100 + np.arange(size[0] * size[1])).astype(np.uint16).reshape(size)
    depth[0, :2] = (0, 801)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not as_array:
        write_map(path, depth)
    else:
        np.save(path.with_suffix(".npy"), np.where(depth == 0, np.nan, depth).astype(np.float32))


def _birds(folder: Path, images: list[dict[str, Any]], size: tuple[int, int]) -> None:
    """Three annotation files of names of their own."""
    h, w = size
    points = [w // 3, h // 2, 2, w // 2, h // 3, 1, w // 2, h // 2, 2, 0, 0, 0]
    base = {"category_id": 7, "bbox": [w // 4, h // 4, w // 2, h // 2], "area": w * h / 8, "keypoints": points}
    birds = [{"id": i, "image_id": image["id"], **base} for i, image in enumerate(images)]
    category = {"id": 7, "name": "bird", "keypoints": list(SKELETON)}
    texts = [{"id": i, "image_id": image["id"], "caption": f"a bird sits there {i}"} for i, image in enumerate(images)]
    boxes = [{k: v for k, v in row.items() if k != "keypoints"} for row in birds]
    named = {"id": 7, "name": "bird"}
    for name, rows, categories in (("birds", birds, [category]), ("texts", texts, []), ("boxes", boxes, [named])):
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))


MAKERS: dict[str, Callable[[Path], None]] = {
    "ade20k": ade20k,
    "camvid": camvid,
    "coco": coco,
    "coco_voc": coco,
    "folder": folder_of_all,
    "imagenet": imagenet,
    "imagenet1k": imagenet1k,
    "nyuv2": nyuv2,
    "rgbd": rgbd,
    "voc": voc,
}
"""Data set on disk -> writes a tiny one in the official layout."""
